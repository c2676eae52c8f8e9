/*
 * merge_write.c
 *		Writes the open state of the built-in reducers as jsonb.
 */
#include "state/merge.h"

#include "miscadmin.h"

static void free_written(MergeField *written);
static Jsonb *write_object(MergeField **fields, int count);
static int	compare_fields(const void *a, const void *b);

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
		fields[count++] = slot->field->child ? es_merge_written_child(slot->field) : slot->field;

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
 * es_merge_written_child returns a field like one whose value is an open object, with
 * the object written.
 */
MergeField *
es_merge_written_child(MergeField *field)
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
 * free_written frees what es_merge_written_child() made.
 */
static void
free_written(MergeField *written)
{
	pfree(written->value - offsetof(Jsonb, root));
	pfree(written);
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
