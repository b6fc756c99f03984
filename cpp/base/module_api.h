// Internals that libowl exports for owl's Python module. Not part of the C++ API: they may change at any time.
#pragma once

#include "owl/export.h"

#define OWL_MODULE_API OWL_API
