/* skinny_planes.cu - skinny.cuh for codes of 5 to 8 bits: Q5_0, Q5_1, Q5_K, Q6_K, Q8_0.
 * Owns nothing.  Refuses nothing: linear.cu knows which family a type is of.  Thread: the rank's.
 */
#include "kernels/cuda/skinny.cuh"

#include <assert.h>

void skinny_planes(cuda_state *st, int type, skinny_args a)
{
    switch (type) {
    case DT_Q5_0: skinny_launch<DT_Q5_0>(st, a); break;
    case DT_Q5_1: skinny_launch<DT_Q5_1>(st, a); break;
    case DT_Q5_K: skinny_launch<DT_Q5_K>(st, a); break;
    case DT_Q6_K: skinny_launch<DT_Q6_K>(st, a); break;
    case DT_Q8_0: skinny_launch<DT_Q8_0>(st, a); break;
    default: assert(!"a type of this family");
    }
}
