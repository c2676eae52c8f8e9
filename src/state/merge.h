/*
 * merge.h
 *		The open state of the built-in reducers: merge.c adds to it, and
 *		merge_write.c writes it as jsonb.
 */
#ifndef EVENTSRC_MERGE_H
#define EVENTSRC_MERGE_H

#include "state/state.h"

#include "common/hashfn.h"

#include "state/shape.h"

/* a key of the state and its last value */
typedef struct MergeField
{
	const char *key;
	int			keylen;
	JEntry		type;			/* type bits of the value's JEntry */
	char	   *value;			/* without alignment padding */
	int			length;
	int			capacity;
	EsMerge    *child;			/* the value, if it is an open object */
} MergeField;

typedef struct MergeKey
{
	const char *data;
	int			len;
} MergeKey;

typedef struct MergeSlot
{
	MergeKey	key;
	uint32		hash;
	char		status;
	MergeField *field;
} MergeSlot;

#define SH_PREFIX merge
#define SH_ELEMENT_TYPE MergeSlot
#define SH_KEY_TYPE MergeKey
#define SH_KEY key
#define SH_HASH_KEY(tb, k) \
	hash_bytes((const unsigned char *) (k).data, (k).len)
#define SH_EQUAL(tb, a, b) \
	((a).len == (b).len && memcmp((a).data, (b).data, (a).len) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* of other objects, the keys of the previous one are tried first, one by one */
#define MERGE_GUESSES	32

struct EsMerge
{
	MemoryContext context;		/* keys, values and the table */
	merge_hash *fields;
	EsShapes   *shapes;			/* of objects, with the fields of their keys;
								 * NULL: not yet */
	int			merged;			/* objects until then */
	MergeField *guesses[MERGE_GUESSES];
	Jsonb	   *whole;			/* the state, if it is no object */
};

/* merge_write.c */
extern MergeField *es_merge_written_child(MergeField *field);

#endif							/* EVENTSRC_MERGE_H */
