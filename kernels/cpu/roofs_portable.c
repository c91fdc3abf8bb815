/* roofs_portable.c - the measured loops in plain C.  Any thread. */
#define ROOFS roofs_portable
#define CHAINS 2
#include "kernels/cpu/roofs_body.h"
