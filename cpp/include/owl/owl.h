// owl: lazy dataflow over column-major arrays. Includes all public headers.
#pragma once

#include "owl/collective.h"
#include "owl/conv.h"
#include "owl/device.h"
#include "owl/elewise.h"
#include "owl/error.h"
#include "owl/inspect.h"
#include "owl/narray.h"
#include "owl/norm.h"
#include "owl/op.h"
#include "owl/tape.h"
