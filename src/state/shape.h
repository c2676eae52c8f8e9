/*
 * shape.h
 *		The keys of objects that were merged, so that they need not be looked up
 *		when an object with the same ones comes again.
 */
#ifndef EVENTSRC_SHAPE_H
#define EVENTSRC_SHAPE_H

#include "utils/jsonb.h"

/* objects with more keys are not remembered */
#define ES_SHAPE_KEYS	32
/* so many are */
#define ES_SHAPES		32
/* whether others were seen before is noted in so many places */
#define ES_SHAPES_SEEN	128

typedef struct EsShape EsShape;

typedef struct EsShapes
{
	EsShape    *shapes[ES_SHAPES];	/* by hash */
	uint16		seen[ES_SHAPES_SEEN];	/* of the hash that was looked for
										 * last */
} EsShapes;

/* What is asked of an object, and found out about it. */
typedef struct EsShapeQuery
{
	uint32		keys_length;	/* of all of its keys */
	uint32		hash;
	bool		keep;			/* es_shape_keep() is to be called */
} EsShapeQuery;

extern void **es_shape_find(EsShapes *shapes, JsonbContainer *object, EsShapeQuery *query);
extern void es_shape_keep(EsShapes *shapes, MemoryContext context, JsonbContainer *object,
						  EsShapeQuery *query, void **fields);
extern void es_shapes_forget(EsShapes *shapes);

#endif							/* EVENTSRC_SHAPE_H */
