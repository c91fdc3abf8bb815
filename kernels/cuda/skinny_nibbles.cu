/* skinny_nibbles.cu - skinny.cuh for 4-bit codes: Q4_0, Q4_1, Q4_K, Q2_K, Q3_K.
 * Owns nothing.  Refuses nothing: linear.cu knows which family a type is of.  Thread: the rank's.
 */
#include "kernels/cuda/skinny.cuh"

#include <assert.h>

void skinny_nibbles(cuda_state *st, int type, skinny_args a)
{
    switch (type) {
    case DT_Q4_0: skinny_launch<DT_Q4_0>(st, a); break;
    case DT_Q4_1: skinny_launch<DT_Q4_1>(st, a); break;
    case DT_Q4_K: skinny_launch<DT_Q4_K>(st, a); break;
    case DT_Q2_K: skinny_launch<DT_Q2_K>(st, a); break;
    case DT_Q3_K: skinny_launch<DT_Q3_K>(st, a); break;
    default: assert(!"a type of this family");
    }
}
