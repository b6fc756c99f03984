// libowl exports the namespace blocks and declarations marked OWL_API. All other names are hidden.
#pragma once

#define OWL_API __attribute__((visibility("default")))
