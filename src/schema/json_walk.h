/*
 * json_walk.h
 *		Walks over the children of a jsonb array or object in place, without the
 *		iterators of the server, which allocate.
 */
#ifndef EVENTSRC_JSON_WALK_H
#define EVENTSRC_JSON_WALK_H

#include "eventsrc.h"

#include "utils/jsonb.h"
#include "utils/numeric.h"

typedef struct EsJsonWalk
{
	JsonbContainer *container;
	char	   *base;			/* what offsets count from */
	int			index;			/* of the next child */
	uint32		offset;			/* where it begins */
} EsJsonWalk;

/*
 * es_json_walk_items begins a walk over an array's items.
 */
static inline void
es_json_walk_items(EsJsonWalk *walk, JsonbContainer *array)
{
	walk->container = array;
	walk->base = (char *) &array->children[JsonContainerSize(array)];
	walk->index = 0;
	walk->offset = 0;
}

/*
 * es_json_walk_keys begins a walk over an object's keys, which are ordered by
 * their length, then their bytes.
 */
static inline void
es_json_walk_keys(EsJsonWalk *walk, JsonbContainer *object)
{
	walk->container = object;
	walk->base = (char *) &object->children[JsonContainerSize(object) * 2];
	walk->index = 0;
	walk->offset = 0;
}

/*
 * es_json_walk_values begins a walk over an object's values, in their keys'
 * order.
 */
static inline void
es_json_walk_values(EsJsonWalk *walk, JsonbContainer *object)
{
	es_json_walk_keys(walk, object);
	walk->index = JsonContainerSize(object);
	walk->offset = getJsonbOffset(object, walk->index);
}

/*
 * es_json_walk_skip passes over the next child; returns where it ends.
 */
static inline uint32
es_json_walk_skip(EsJsonWalk *walk)
{
	JBE_ADVANCE_OFFSET(walk->offset, walk->container->children[walk->index]);
	walk->index++;
	return walk->offset;
}

/*
 * es_json_walk_key takes the next key; returns its length.
 */
static inline int
es_json_walk_key(EsJsonWalk *walk, const char **name)
{
	uint32		begin = walk->offset;

	*name = walk->base + begin;
	return es_json_walk_skip(walk) - begin;
}

/*
 * es_json_walk_next takes the next child; there must be one.
 */
static inline void
es_json_walk_next(EsJsonWalk *walk, JsonbValue *value)
{
	JEntry		entry = walk->container->children[walk->index];
	uint32		begin = walk->offset;
	uint32		end = es_json_walk_skip(walk);

	switch (entry & JENTRY_TYPEMASK)
	{
		case JENTRY_ISSTRING:
			value->type = jbvString;
			value->val.string.val = walk->base + begin;
			value->val.string.len = end - begin;
			break;
		case JENTRY_ISNUMERIC:
			value->type = jbvNumeric;
			value->val.numeric = (Numeric) (walk->base + INTALIGN(begin));
			break;
		case JENTRY_ISCONTAINER:
			value->type = jbvBinary;
			value->val.binary.data = (JsonbContainer *) (walk->base + INTALIGN(begin));
			value->val.binary.len = end - INTALIGN(begin);
			break;
		case JENTRY_ISNULL:
			value->type = jbvNull;
			break;
		default:
			value->type = jbvBool;
			value->val.boolean = JBE_ISBOOL_TRUE(entry);
			break;
	}
}

#endif							/* EVENTSRC_JSON_WALK_H */
