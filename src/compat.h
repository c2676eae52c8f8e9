/*
 * compat.h
 *		Every difference between the PostgreSQL versions that eventsrc builds
 *		on (15, 17, 18), in one place; no other file asks PG_VERSION_NUM.
 */
#ifndef EVENTSRC_COMPAT_H
#define EVENTSRC_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "eventsrc needs PostgreSQL 15 or later"
#endif

/* --- state --- */

#if PG_VERSION_NUM >= 180000
#define es_primary_key_index(relation) \
	RelationGetPrimaryKeyIndex(relation, false)
#else
#define es_primary_key_index(relation) \
	RelationGetPrimaryKeyIndex(relation)
#endif

#endif							/* EVENTSRC_COMPAT_H */
