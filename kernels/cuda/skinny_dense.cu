/* skinny_dense.cu - skinny.cuh for 16-bit weights: BF16, F16.
 * Owns nothing.  Refuses nothing: linear.cu knows which family a type is of.  Thread: the rank's.
 */
#include "kernels/cuda/skinny.cuh"

#include <assert.h>

void skinny_dense(cuda_state *st, int type, skinny_args a)
{
    switch (type) {
    case DT_BF16: skinny_launch<DT_BF16>(st, a); break;
    case DT_F16: skinny_launch<DT_F16>(st, a); break;
    default: assert(!"a type of this family");
    }
}
