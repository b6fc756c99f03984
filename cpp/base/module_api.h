// Internals that libowl exports for owl's own Python module. No part of the C++ API: they change at will.
#pragma once

#include "owl/export.h"

#define OWL_MODULE_API OWL_API
