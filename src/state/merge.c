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
#include "state/merge.h"

#include "miscadmin.h"
#include "utils/memutils.h"

/* room for the common small value */
typedef union AlignedJsonb
{
	Jsonb		jsonb;
	char		bytes[VARATT_SHORT_MAX + VARHDRSZ];
} AlignedJsonb;

static EsMerge *open_object(MemoryContext context, JsonbContainer *object);
static void close_object(EsMerge *merge);
static void free_child(MergeField *field);
static void forget_whole(EsMerge *merge);
static Jsonb *align_data(Datum data, AlignedJsonb *aligned);
static inline void **find_shape(EsMerge *merge, JsonbContainer *object, EsShapeQuery *query);
static void merge_object(EsMerge *merge, JsonbContainer *object);
static void patch_object(EsMerge *merge, JsonbContainer *object);
static void patch_field(EsMerge *merge, MergeField *field, JsonbContainer *object);
static void remove_field(EsMerge *merge, const char *key, int keylen);
static inline MergeField *find_field(EsMerge *merge, int position,
									 const char *key, int keylen);
static inline void set_field(EsMerge *merge, MergeField *field, JEntry type,
							 const char *value, int length);

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
 * es_merge_set gives a key of the state a value, which must not lie in the state
 * itself.  Calls with the same number mostly have the same key.
 */
void
es_merge_set(EsMerge *merge, int number, const char *key, int keylen, const JsonbValue *value)
{
	int			position = MERGE_GUESSES - 1 - number % MERGE_GUESSES;
	MergeField *field;

	forget_whole(merge);
	field = find_field(merge, position, key, keylen);
	switch (value->type)
	{
		case jbvNull:
			set_field(merge, field, JENTRY_ISNULL, NULL, 0);
			break;
		case jbvBool:
			set_field(merge, field, value->val.boolean ? JENTRY_ISBOOL_TRUE : JENTRY_ISBOOL_FALSE,
					  NULL, 0);
			break;
		case jbvString:
			set_field(merge, field, JENTRY_ISSTRING, value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			set_field(merge, field, JENTRY_ISNUMERIC, (char *) value->val.numeric,
					  VARSIZE_ANY(value->val.numeric));
			break;
		case jbvBinary:
			set_field(merge, field, JENTRY_ISCONTAINER, (char *) value->val.binary.data,
					  value->val.binary.len);
			break;
		default:
			elog(ERROR, "unexpected kind of jsonb value: %d", (int) value->type);
	}
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
	field = slot->field->child ? es_merge_written_child(slot->field) : slot->field;
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
	if (merge->shapes)
		es_shapes_forget(merge->shapes);
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
	if (field->child->shapes)
		pfree(field->child->shapes);
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
 * find_shape returns the fields of all keys of an object, if objects with the
 * same ones were merged before; not worth it where few are merged at all.
 */
static inline void **
find_shape(EsMerge *merge, JsonbContainer *object, EsShapeQuery *query)
{
	if (merge->shapes == NULL)
	{
		if (merge->merged++ < 2)
		{
			query->keep = false;
			query->keys_length = getJsonbOffset(object, JsonContainerSize(object));
			return NULL;
		}
		merge->shapes = MemoryContextAllocZero(merge->context, sizeof(EsShapes));
	}
	return es_shape_find(merge->shapes, object, query);
}

/*
 * merge_object walks over an object's keys and values as they lie in memory.
 */
static void
merge_object(EsMerge *merge, JsonbContainer *object)
{
	EsShapeQuery query;
	void	  **known = find_shape(merge, object, &query);
	void	   *found[ES_SHAPE_KEYS];
	int			count = JsonContainerSize(object);
	char	   *base = (char *) &object->children[count * 2];
	uint32		key = 0;
	uint32		value = query.keys_length;

	for (int i = 0; i < count; i++)
	{
		uint32		next_value = value;
		JEntry		entry = object->children[count + i];
		uint32		start = value;
		MergeField *field;

		JBE_ADVANCE_OFFSET(next_value, entry);

		/* numbers and containers are aligned: the padding is not theirs */
		if (JBE_ISNUMERIC(entry) || JBE_ISCONTAINER(entry))
			start = INTALIGN(start);

		if (known)
			field = known[i];
		else
		{
			uint32		next_key = key;

			JBE_ADVANCE_OFFSET(next_key, object->children[i]);
			field = find_field(merge, i, base + key, next_key - key);
			key = next_key;
			if (query.keep)
				found[i] = field;
		}
		set_field(merge, field, entry & JENTRY_TYPEMASK, base + start,
				  next_value - start);
		value = next_value;
	}
	if (query.keep)
		es_shape_keep(merge->shapes, merge->context, object, &query, found);
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
	if (merge->shapes)
		es_shapes_forget(merge->shapes);
	memset(merge->guesses, 0, sizeof(merge->guesses));
	free_child(field);
	if (field->value)
		pfree(field->value);
	pfree(field);
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
