// owl: lazy dataflow over column-major arrays. Everything a program needs.
#pragma once

#include "owl/collective.h"
#include "owl/conv.h"
#include "owl/device.h"
#include "owl/elewise.h"
#include "owl/error.h"
#include "owl/inspect.h"
#include "owl/narray.h"
#include "owl/op.h"
#include "owl/tape.h"
