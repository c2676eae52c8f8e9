/*
 * shape.c
 *		The keys of objects that were merged.
 *
 * Events of one type mostly have the same keys.  In jsonb these lie side by
 * side, after the entries that say how long they are, so all of them are
 * compared at once, and what the caller knows of each is at hand.  Keys that
 * come only once are not worth it: a shape is kept when it is seen again.
 */
#include "postgres.h"

#include "state/shape.h"

/* nor are keys of more bytes than this remembered */
#define MAX_LENGTH		1024

/* the keys of an object, with a pointer of the caller's for each */
struct EsShape
{
	uint32		hash;
	int			count;
	uint32		length;
	char	   *keys;
	void	  **fields;
	JEntry		entries[FLEXIBLE_ARRAY_MEMBER];
};

/*
 * hash_keys hashes bytes.
 */
static inline uint32
hash_keys(const char *keys, uint32 length)
{
	const char *end = keys + length;
	uint64		hash = length;
	uint64		word = 0;

	if (length < sizeof(word))
	{
		while (keys < end)
			word = word << 8 | (unsigned char) *keys++;
		hash ^= word;
	}
	else
	{
		for (; end - keys > sizeof(word); keys += sizeof(word))
		{
			memcpy(&word, keys, sizeof(word));
			hash = (hash ^ word) * UINT64CONST(0x9E3779B97F4A7C15);
			hash ^= hash >> 32;
		}
		memcpy(&word, end - sizeof(word), sizeof(word));
		hash ^= word;
	}
	return (uint32) (hash * UINT64CONST(0x9E3779B97F4A7C15) >> 32);
}

/*
 * other_slot returns the second of the two slots where a hash's shape can be.
 */
static inline uint32
other_slot(uint32 hash)
{
	return hash / ES_SHAPES % ES_SHAPES;
}

/*
 * is_shape tells whether a shape is that of an object.
 */
static inline bool
is_shape(EsShape *shape, JsonbContainer *object, EsShapeQuery *query)
{
	int			count = JsonContainerSize(object);

	return shape && shape->hash == query->hash && shape->count == count &&
		shape->length == query->keys_length &&
		memcmp(shape->entries, object->children, count * sizeof(JEntry)) == 0 &&
		memcmp(shape->keys, &object->children[count * 2], shape->length) == 0;
}

/*
 * es_shape_find returns what the caller knows of an object's keys, in their
 * order; NULL if they are not remembered.
 */
void	  **
es_shape_find(EsShapes *shapes, JsonbContainer *object, EsShapeQuery *query)
{
	int			count = JsonContainerSize(object);
	char	   *keys = (char *) &object->children[count * 2];
	uint32		length = 0;
	uint32		slot;

	query->keep = false;
	if (count > ES_SHAPE_KEYS)
	{
		query->keys_length = getJsonbOffset(object, count);
		return NULL;
	}
	for (int i = 0; i < count; i++)
		JBE_ADVANCE_OFFSET(length, object->children[i]);
	query->keys_length = length;
	if (length > MAX_LENGTH)
		return NULL;

	query->hash = hash_keys(keys, length);
	slot = query->hash % ES_SHAPES;
	if (is_shape(shapes->shapes[slot], object, query))
		return shapes->shapes[slot]->fields;
	if (is_shape(shapes->shapes[other_slot(query->hash)], object, query))
		return shapes->shapes[other_slot(query->hash)]->fields;
	query->keep = shapes->seen[query->hash % ES_SHAPES_SEEN] == query->hash >> 16;
	shapes->seen[query->hash % ES_SHAPES_SEEN] = query->hash >> 16;
	return NULL;
}

/*
 * es_shape_keep remembers an object's keys after es_shape_find() did not find
 * them, and the caller's pointer for each.
 */
void
es_shape_keep(EsShapes *shapes, MemoryContext context, JsonbContainer *object,
			  EsShapeQuery *query, void **fields)
{
	int			count = JsonContainerSize(object);
	uint32		slot = query->hash % ES_SHAPES;
	Size		entries = MAXALIGN(offsetof(EsShape, entries) + count * sizeof(JEntry));
	EsShape    *shape;

	if (shapes->shapes[slot] && shapes->shapes[other_slot(query->hash)] == NULL)
		slot = other_slot(query->hash);
	if (shapes->shapes[slot])
		pfree(shapes->shapes[slot]);
	shapes->shapes[slot] = NULL;
	shape = MemoryContextAlloc(context, entries + count * sizeof(void *) + query->keys_length);
	shape->hash = query->hash;
	shape->count = count;
	shape->length = query->keys_length;
	shape->fields = (void **) ((char *) shape + entries);
	shape->keys = (char *) &shape->fields[count];
	memcpy(shape->entries, object->children, count * sizeof(JEntry));
	memcpy(shape->fields, fields, count * sizeof(void *));
	memcpy(shape->keys, &object->children[count * 2], query->keys_length);
	shapes->shapes[slot] = shape;
}

/*
 * es_shapes_forget forgets all keys, as a pointer of the caller's is good no
 * more.
 */
void
es_shapes_forget(EsShapes *shapes)
{
	for (int i = 0; i < ES_SHAPES; i++)
	{
		if (shapes->shapes[i])
			pfree(shapes->shapes[i]);
	}
	memset(shapes, 0, sizeof(EsShapes));
}
