/*
 * merge.c
 *		The built-in reducers: a shallow merge of the events' data, and merge
 *		patch (RFC 7396).
 *
 * state || data, event by event, writes the whole state anew each time.  Here
 * the state stays open while the events pass: a hash table of its top-level
 * keys, each with the bytes of its last value, which are the same wherever
 * they stand in a jsonb (offsets inside a value are relative to it).  It is
 * written as jsonb when somebody wants to see it.  A merge patch opens the
 * objects inside the state too, those that a patch reaches into.
 */
#include "state/state.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"

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

/* keys of the previous object are tried first, position by position */
#define MERGE_GUESSES	32

/* room for the common small value */
typedef union AlignedJsonb
{
	Jsonb		jsonb;
	char		bytes[VARATT_SHORT_MAX + VARHDRSZ];
} AlignedJsonb;

struct EsMerge
{
	MemoryContext context;		/* keys, values and the table */
	merge_hash *fields;
	MergeField *guesses[MERGE_GUESSES];
	Jsonb	   *whole;			/* the state, if it is no object */
};

static EsMerge *open_object(MemoryContext context, JsonbContainer *object);
static void close_object(EsMerge *merge);
static void free_child(MergeField *field);
static void forget_whole(EsMerge *merge);
static Jsonb *align_data(Datum data, AlignedJsonb *aligned);
static void merge_object(EsMerge *merge, JsonbContainer *object);
static void patch_object(EsMerge *merge, JsonbContainer *object);
static void patch_field(EsMerge *merge, MergeField *field, JsonbContainer *object);
static void remove_field(EsMerge *merge, const char *key, int keylen);
static MergeField *written_child(MergeField *field);
static void free_written(MergeField *written);
static inline MergeField *find_field(EsMerge *merge, int position,
									 const char *key, int keylen);
static inline void set_field(EsMerge *merge, MergeField *field, JEntry type,
							 const char *value, int length);
static Jsonb *write_object(MergeField **fields, int count);
static int	compare_fields(const void *a, const void *b);

/*
 * es_merge_begin opens a state, which lives in the current memory context.
 */
EsMerge *
es_merge_begin(Jsonb *start)
{
	EsMerge    *merge;

	if (JB_ROOT_IS_OBJECT(start))
		return open_object(CurrentMemoryContext, &start->root);

	merge = open_object(CurrentMemoryContext, NULL);
	merge->whole = DatumGetJsonbPCopy(JsonbPGetDatum(start));
	return merge;
}

/*
 * es_merge_add merges an event's data into the state.  Data that is no object
 * has no keys to merge and leaves the state as it is.  What this allocates in
 * the current memory context may be reset after the call.
 */
void
es_merge_add(EsMerge *merge, Datum data)
{
	AlignedJsonb aligned;
	Jsonb	   *object = align_data(data, &aligned);

	if (!JB_ROOT_IS_OBJECT(object))
		return;
	forget_whole(merge);
	merge_object(merge, &object->root);
}

/*
 * es_merge_patch_add applies an event's data to the state as a merge patch:
 * null removes a key, objects are patched in turn, all else replaces what was
 * there.
 */
void
es_merge_patch_add(EsMerge *merge, Datum data)
{
	AlignedJsonb aligned;
	Jsonb	   *patch = align_data(data, &aligned);

	if (JB_ROOT_IS_OBJECT(patch))
	{
		forget_whole(merge);
		patch_object(merge, &patch->root);
	}
	else
	{
		MemoryContext caller = MemoryContextSwitchTo(merge->context);

		close_object(merge);
		forget_whole(merge);
		merge->whole = DatumGetJsonbPCopy(JsonbPGetDatum(patch));
		MemoryContextSwitchTo(caller);
	}
}

/*
 * es_merge_state writes the state as jsonb, in the current memory context.  The
 * merge can go on.
 */
Jsonb *
es_merge_state(EsMerge *merge)
{
	MergeField **fields;
	merge_iterator iterator;
	MergeSlot  *slot;
	Jsonb	   *result;
	int			count = 0;

	check_stack_depth();
	if (merge->whole)
		return DatumGetJsonbPCopy(JsonbPGetDatum(merge->whole));

	fields = MemoryContextAllocHuge(CurrentMemoryContext,
									sizeof(MergeField *) * Max(merge->fields->members, 1));
	merge_start_iterate(merge->fields, &iterator);
	while ((slot = merge_iterate(merge->fields, &iterator)) != NULL)
		fields[count++] = slot->field->child ? written_child(slot->field) : slot->field;

	/* jsonb keeps an object's keys in an order of its own */
	qsort(fields, count, sizeof(MergeField *), compare_fields);
	result = write_object(fields, count);
	for (int i = 0; i < count; i++)
	{
		if (fields[i]->child)
			free_written(fields[i]);
	}
	pfree(fields);
	return result;
}

/*
 * es_merge_find finds the value of a key; false if the state has none.  The
 * value lasts until the next event.
 */
bool
es_merge_find(EsMerge *merge, const char *key, int keylen, JsonbValue *value)
{
	MergeKey	wanted = {key, keylen};
	MergeSlot  *slot = merge_lookup(merge->fields, wanted);
	MergeField *field;

	if (merge->whole || slot == NULL)
		return false;
	field = slot->field->child ? written_child(slot->field) : slot->field;
	if (JBE_ISNULL(field->type))
		value->type = jbvNull;
	else if (JBE_ISBOOL(field->type))
	{
		value->type = jbvBool;
		value->val.boolean = JBE_ISBOOL_TRUE(field->type);
	}
	else if (JBE_ISSTRING(field->type))
	{
		value->type = jbvString;
		value->val.string.val = field->value;
		value->val.string.len = field->length;
	}
	else if (JBE_ISNUMERIC(field->type))
	{
		value->type = jbvNumeric;
		value->val.numeric = (Numeric) field->value;
	}
	else
	{
		value->type = jbvBinary;
		value->val.binary.data = (JsonbContainer *) field->value;
		value->val.binary.len = field->length;
	}
	return true;
}

/*
 * open_object opens an object (NULL: an empty one).
 */
static EsMerge *
open_object(MemoryContext context, JsonbContainer *object)
{
	EsMerge    *merge = MemoryContextAllocZero(context, sizeof(EsMerge));

	merge->context = context;
	merge->fields = merge_create(context, 16, NULL);
	if (object)
		merge_object(merge, object);
	return merge;
}

/*
 * close_object forgets all keys of an open object.
 */
static void
close_object(EsMerge *merge)
{
	merge_iterator iterator;
	MergeSlot  *slot;

	check_stack_depth();
	merge_start_iterate(merge->fields, &iterator);
	while ((slot = merge_iterate(merge->fields, &iterator)) != NULL)
	{
		MergeField *field = slot->field;

		free_child(field);
		if (field->value)
			pfree(field->value);
		pfree(field);
	}
	merge_reset(merge->fields);
	memset(merge->guesses, 0, sizeof(merge->guesses));
}

/*
 * free_child frees the open object that is a field's value, if it is one.
 */
static void
free_child(MergeField *field)
{
	if (field->child == NULL)
		return;
	close_object(field->child);
	merge_destroy(field->child->fields);
	pfree(field->child);
	field->child = NULL;
}

/*
 * forget_whole forgets a state that is no object; then it is an empty one.
 */
static void
forget_whole(EsMerge *merge)
{
	if (merge->whole)
		pfree(merge->whole);
	merge->whole = NULL;
}

/*
 * align_data returns an event's data as jsonb can be read; small values
 * without allocating.
 */
static Jsonb *
align_data(Datum data, AlignedJsonb *aligned)
{
	struct varlena *packed = (struct varlena *) DatumGetPointer(data);

	if (VARATT_IS_SHORT(packed) && !VARATT_IS_EXTERNAL(packed))
	{
		Size		length = VARSIZE_SHORT(packed) - VARHDRSZ_SHORT;

		memcpy(VARDATA(aligned), VARDATA_SHORT(packed), length);
		SET_VARSIZE(aligned, length + VARHDRSZ);
		return &aligned->jsonb;
	}
	return DatumGetJsonbP(data);
}

/*
 * merge_object walks over an object's keys and values as they lie in memory.
 */
static void
merge_object(EsMerge *merge, JsonbContainer *object)
{
	int			count = JsonContainerSize(object);
	char	   *base = (char *) &object->children[count * 2];
	uint32		key = 0;
	uint32		value = getJsonbOffset(object, count);

	for (int i = 0; i < count; i++)
	{
		uint32		next_key = key;
		uint32		next_value = value;
		JEntry		entry = object->children[count + i];
		uint32		start = value;
		MergeField *field;

		JBE_ADVANCE_OFFSET(next_key, object->children[i]);
		JBE_ADVANCE_OFFSET(next_value, entry);

		/* numbers and containers are aligned: the padding is not theirs */
		if (JBE_ISNUMERIC(entry) || JBE_ISCONTAINER(entry))
			start = INTALIGN(start);

		field = find_field(merge, i, base + key, next_key - key);
		set_field(merge, field, entry & JENTRY_TYPEMASK, base + start,
				  next_value - start);
		key = next_key;
		value = next_value;
	}
}

/*
 * patch_object applies a patch that is an object to an open one.
 */
static void
patch_object(EsMerge *merge, JsonbContainer *object)
{
	int			count = JsonContainerSize(object);
	char	   *base = (char *) &object->children[count * 2];
	uint32		key = 0;
	uint32		value = getJsonbOffset(object, count);

	check_stack_depth();
	for (int i = 0; i < count; i++)
	{
		uint32		next_key = key;
		uint32		next_value = value;
		JEntry		entry = object->children[count + i];
		uint32		start = value;

		JBE_ADVANCE_OFFSET(next_key, object->children[i]);
		JBE_ADVANCE_OFFSET(next_value, entry);
		if (JBE_ISNUMERIC(entry) || JBE_ISCONTAINER(entry))
			start = INTALIGN(start);

		if (JBE_ISNULL(entry))
			remove_field(merge, base + key, next_key - key);
		else
		{
			MergeField *field = find_field(merge, i, base + key, next_key - key);
			JsonbContainer *inner = (JsonbContainer *) (base + start);

			if (JBE_ISCONTAINER(entry) && JsonContainerIsObject(inner))
				patch_field(merge, field, inner);
			else
				set_field(merge, field, entry & JENTRY_TYPEMASK, base + start,
						  next_value - start);
		}
		key = next_key;
		value = next_value;
	}
}

/*
 * patch_field applies a patch that is an object to a field, which is opened
 * for it; what is no object is replaced by an empty one first.
 */
static void
patch_field(EsMerge *merge, MergeField *field, JsonbContainer *object)
{
	if (field->child == NULL)
	{
		JsonbContainer *value = (JsonbContainer *) field->value;

		if (field->value && (!JBE_ISCONTAINER(field->type) || !JsonContainerIsObject(value)))
			value = NULL;
		field->child = open_object(merge->context, value);
		if (field->value)
			pfree(field->value);
		field->value = NULL;
		field->capacity = field->length = 0;
	}
	patch_object(field->child, object);
}

/*
 * remove_field removes a key from an open object, if it is there.
 */
static void
remove_field(EsMerge *merge, const char *key, int keylen)
{
	MergeKey	wanted = {key, keylen};
	MergeSlot  *slot = merge_lookup(merge->fields, wanted);
	MergeField *field;

	if (slot == NULL)
		return;
	field = slot->field;
	merge_delete_item(merge->fields, slot);
	memset(merge->guesses, 0, sizeof(merge->guesses));
	free_child(field);
	if (field->value)
		pfree(field->value);
	pfree(field);
}

/*
 * written_child returns a field like one whose value is an open object, with
 * the object written.
 */
static MergeField *
written_child(MergeField *field)
{
	MergeField *written = palloc(sizeof(MergeField));
	Jsonb	   *object = es_merge_state(field->child);

	*written = *field;
	Assert(field->value == NULL);
	written->type = JENTRY_ISCONTAINER;
	written->value = (char *) &object->root;
	written->length = VARSIZE(object) - VARHDRSZ;
	return written;
}

/*
 * free_written frees what written_child() made.
 */
static void
free_written(MergeField *written)
{
	pfree(written->value - offsetof(Jsonb, root));
	pfree(written);
}

/*
 * find_field returns the state's field for a key, new if need be.
 */
static inline MergeField *
find_field(EsMerge *merge, int position, const char *key, int keylen)
{
	MergeField *field;
	MergeSlot  *slot;
	MergeKey	wanted;
	bool		found;

	/* events of one type mostly have the same keys in the same places */
	if (position < MERGE_GUESSES)
	{
		field = merge->guesses[position];
		if (field != NULL && field->keylen == keylen &&
			memcmp(field->key, key, keylen) == 0)
			return field;
	}

	wanted.data = key;
	wanted.len = keylen;
	slot = merge_insert(merge->fields, wanted, &found);
	if (!found)
	{
		char	   *copy;

		field = MemoryContextAllocZero(merge->context,
									   sizeof(MergeField) + keylen);
		copy = (char *) (field + 1);
		memcpy(copy, key, keylen);
		field->key = copy;
		field->keylen = keylen;
		slot->key.data = copy;	/* the caller's does not last */
		slot->field = field;
	}
	if (position < MERGE_GUESSES)
		merge->guesses[position] = slot->field;
	return slot->field;
}

/*
 * set_field gives a field its new value, over the old one if that has room.
 */
static inline void
set_field(EsMerge *merge, MergeField *field, JEntry type, const char *value,
		  int length)
{
	if (unlikely(field->child != NULL))
		free_child(field);
	field->type = type;
	if (length > field->capacity)
	{
		if (field->value)
			pfree(field->value);
		field->value = NULL;
		field->capacity = 0;
		field->value = MemoryContextAlloc(merge->context, length);
		field->capacity = length;
	}
	if (length > 0)
		memcpy(field->value, value, length);
	field->length = length;
}

/*
 * write_object writes sorted fields as a jsonb object.
 */
static Jsonb *
write_object(MergeField **fields, int count)
{
	Size		size = 0;
	Jsonb	   *result;
	JEntry	   *entries;
	char	   *base;
	uint32		offset = 0;

	for (int i = 0; i < count; i++)
		size += fields[i]->keylen + fields[i]->length + sizeof(int32) - 1;
	if (count > JB_CMASK || size > JENTRY_OFFLENMASK)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("state is too large"),
				 errdetail("The state has %d keys and about %zu bytes; a jsonb object can have %u bytes.",
						   count, size, JENTRY_OFFLENMASK)));

	size += offsetof(Jsonb, root) + offsetof(JsonbContainer, children) +
		sizeof(JEntry) * 2 * (Size) count;
	result = palloc0(size);
	result->root.header = count | JB_FOBJECT;
	entries = result->root.children;
	base = (char *) &entries[count * 2];

	for (int i = 0; i < count * 2; i++)
	{
		MergeField *field = fields[i < count ? i : i - count];
		uint32		start = offset;
		JEntry		entry = JENTRY_ISSTRING;

		CHECK_FOR_INTERRUPTS();
		if (i < count)
		{
			memcpy(base + offset, field->key, field->keylen);
			offset += field->keylen;
		}
		else
		{
			entry = field->type;
			if (JBE_ISNUMERIC(entry) || JBE_ISCONTAINER(entry))
				offset = INTALIGN(offset);
			if (field->length > 0)
				memcpy(base + offset, field->value, field->length);
			offset += field->length;
		}

		/* every so often an offset, else a length (see jsonb.h) */
		if (i % JB_OFFSET_STRIDE == 0)
			entries[i] = entry | offset | JENTRY_HAS_OFF;
		else
			entries[i] = entry | (offset - start);
	}
	SET_VARSIZE(result, base + offset - (char *) result);
	return result;
}

/*
 * compare_fields puts keys in the order of jsonb: by length, then by bytes.
 */
static int
compare_fields(const void *a, const void *b)
{
	const MergeField *left = *(MergeField *const *) a;
	const MergeField *right = *(MergeField *const *) b;

	if (left->keylen != right->keylen)
		return left->keylen > right->keylen ? 1 : -1;
	return memcmp(left->key, right->key, left->keylen);
}
