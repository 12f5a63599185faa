/* What the C programs here check with: a failure names the place and ends the process. */
#pragma once
#include <stdio.h>
#include <stdlib.h>

#include "migshare.h"

#define CHECK(call)                                                                              \
    do {                                                                                         \
        int32_t code_ = (call);                                                                   \
        if (code_ != MIGSHARE_OK) {                                                                \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, migshare_status_name(code_),    \
                    migshare_last_error());                                                      \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)
#define REQUIRE(fact)                                                                                             \
    do {                                                                                                          \
        if (!(fact)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #fact, migshare_last_error());    \
            exit(1);                                                                                              \
        }                                                                                                         \
    } while (0)
