/* norm_rope_portable.c - the row kernels compiled for whatever every machine of this architecture
 * has.  Any thread. */
#define CPU_ROWS cpu_rows_portable
#include "kernels/cpu/norm_rope_body.h"
