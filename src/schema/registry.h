/*
 * registry.h
 *		What a store's owner registered about its events: types with their
 *		schemas, strict mode, upcasters.
 *
 * It is kept per backend until one of the tables event_types, upcasters or
 * settings of the store changes; for a store that registers nothing, asking
 * costs a comparison or two.
 */
#ifndef EVENTSRC_REGISTRY_H
#define EVENTSRC_REGISTRY_H

#include "store/store.h"

#include "schema/json_schema.h"

typedef struct EsTypeVersion
{
	text	   *event_type;
	int32		version;
	Jsonb	   *json_schema;	/* NULL: any data */
	EsSchema   *schema;			/* NULL until it is first needed */
} EsTypeVersion;

typedef struct EsUpcaster
{
	text	   *event_type;
	int32		from_version;
	text	   *function;		/* qualified name */
	text	   *to_type;		/* NULL: the same */
} EsUpcaster;

/* the tables that it is read from */
#define ES_REGISTRY_TYPES		0
#define ES_REGISTRY_UPCASTERS	1
#define ES_REGISTRY_SETTINGS	2

typedef struct EsRegistry
{
	Oid			events;			/* hash key: the store's events table */
	Oid			tables[3];
	bool		valid;
	MemoryContext context;
	bool		checks;			/* appends are to be checked */
	bool		strict;
	int			nversions;
	EsTypeVersion *versions;	/* by type and version */
	int			nupcasters;
	EsUpcaster *upcasters;		/* by type and version */
	char	   *identity;		/* of the upcasters; NULL until it is needed */
	uint64		changes;		/* of functions, since the backend began */
} EsRegistry;

/* the store's registry, up to date until the catalogs are next looked at */
extern EsRegistry *es_registry_open(EsStore *store);

/* the last version of a type that is not above a number, NULL if there is none */
extern EsTypeVersion *es_registry_version(EsRegistry *registry, text *event_type, int32 upto);

/* the upcaster of a type's version, NULL if there is none */
extern EsUpcaster *es_registry_upcaster(EsRegistry *registry, text *event_type, int32 version);

/*
 * es_event_check decides on the schema version of an event that is about to be
 * written (given or 0), and refuses data that does not fit its schema.
 */
extern int32 es_event_check(EsStore *store, text *event_type, int32 schema_version, Datum data);

#endif							/* EVENTSRC_REGISTRY_H */
