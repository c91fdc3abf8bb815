/* trace.h - lines about what operations put out (k_trace of kernels.h).  Inside the kernels only.
 * Thread: as a backend. */
#ifndef QUERN_KERNELS_TRACE_H
#define QUERN_KERNELS_TRACE_H

#include "kernels/kernels.h"

/* After an operation: a line about y, if someone asked to see it. */
void trace_output(backend *be, const char *op, tensor y);

#endif
