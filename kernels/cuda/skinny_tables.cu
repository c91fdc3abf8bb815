/* skinny_tables.cu - skinny.cuh for codes looked up: IQ4_NL, IQ4_XS, MXFP4, NVFP4.
 * Owns nothing.  Refuses nothing: linear.cu knows which family a type is of.  Thread: the rank's.
 */
#include "kernels/cuda/skinny.cuh"

#include <assert.h>

void skinny_tables(cuda_state *st, int type, skinny_args a)
{
    switch (type) {
    case DT_IQ4_NL: skinny_launch<DT_IQ4_NL>(st, a); break;
    case DT_IQ4_XS: skinny_launch<DT_IQ4_XS>(st, a); break;
    case DT_MXFP4: skinny_launch<DT_MXFP4>(st, a); break;
    case DT_NVFP4: skinny_launch<DT_NVFP4>(st, a); break;
    default: assert(!"a type of this family");
    }
}
