/* sample_portable.c - the sampler's passes compiled for whatever every machine of this architecture
 * has.  Any thread. */
#define CPU_SAMPLE sample_ops_portable
#include "kernels/cpu/sample_body.h"
