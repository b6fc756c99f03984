// The link to the other processes of an MPI job, as a device with one worker: its tasks are the operations of
// ops/distributed.h, which it runs in recorded order, beside the computing of the other devices.
#pragma once

#include <memory>

#include "backend/mpi/group.h"
#include "base/module_api.h"
#include "device/device.h"

namespace owl::mpi {

OWL_MODULE_API std::unique_ptr<Device> make_device(Group& group);

}  // namespace owl::mpi
