// What libowl exports: namespace blocks and declarations marked OWL_API. All else is hidden.
#pragma once

#define OWL_API __attribute__((visibility("default")))
