/* utf8.h - UTF-8 by the Unicode standard: no surrogates, no overlong forms, at most U+10FFFF.
 * Pure functions, any thread. */
#ifndef QUERN_BASE_UTF8_H
#define QUERN_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length 1..4 of the well-formed character at s[0..n), 0 if the bytes so far are a proper but
 * incomplete beginning of one, -1 if they can never become one. */
int utf8_valid_at(const char *s, size_t n);
/* All of s[n] well formed. */
bool utf8_valid(const char *s, size_t n);
/* Decodes a well-formed character; returns its length. */
int utf8_decode(const char *s, uint32_t *cp);
/* Writes cp (a scalar value) into out; returns its length. */
int utf8_encode(uint32_t cp, char out[4]);
/* Number of bytes at the end of s[n] that are an incomplete beginning of a character (0..3). */
size_t utf8_partial_tail(const char *s, size_t n);
/* Length of the maximal ill-formed subsequence at s[0..n) that one U+FFFD replaces (Unicode
 * "substitution of maximal subparts", what Python's errors="replace" does); needs
 * utf8_valid_at(s, n) <= 0 and n > 0. */
size_t utf8_bad_run(const char *s, size_t n);

#endif
