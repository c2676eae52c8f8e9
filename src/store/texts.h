/*
 * texts.h
 *		Comparing texts byte by byte, as the collation "C" of a store's columns
 *		does.  The texts are neither compressed nor external.
 */
#ifndef EVENTSRC_TEXTS_H
#define EVENTSRC_TEXTS_H

#include "postgres.h"

/*
 * es_text_has compares a text with a number of bytes.
 */
static inline bool
es_text_has(const text *value, const char *bytes, Size length)
{
	return VARSIZE_ANY_EXHDR(value) == length && memcmp(VARDATA_ANY(value), bytes, length) == 0;
}

/*
 * es_text_is compares a text with a string.
 */
static inline bool
es_text_is(const text *value, const char *string)
{
	return es_text_has(value, string, strlen(string));
}

/*
 * es_text_same compares two texts.
 */
static inline bool
es_text_same(const text *a, const text *b)
{
	return es_text_has(a, VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
}

#endif							/* EVENTSRC_TEXTS_H */
