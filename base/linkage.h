/* linkage.h - lets C headers be read by the CUDA sources, which compile as C++. */
#ifndef QUERN_BASE_LINKAGE_H
#define QUERN_BASE_LINKAGE_H

#ifdef __cplusplus
#define C_BEGIN extern "C" {
#define C_END }
#else
#define C_BEGIN
#define C_END
#endif

#endif
