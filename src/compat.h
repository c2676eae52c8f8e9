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

/* --- workers --- */

/* a wait event of our own, as pg_stat_activity shows it */
#if PG_VERSION_NUM >= 170000
#define es_wait_event_new(name)		WaitEventExtensionNew(name)
#else
#define es_wait_event_new(name)		PG_WAIT_EXTENSION
#endif

/* a limit that a background worker has no use for */
#if PG_VERSION_NUM >= 170000
#define es_disable_transaction_timeout() \
	SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE)
#else
#define es_disable_transaction_timeout()	((void) 0)
#endif

#if PG_VERSION_NUM >= 160000
#define es_database_ownercheck(oid, user) \
	object_ownercheck(DatabaseRelationId, (oid), (user))
#else
#define es_database_ownercheck(oid, user) \
	pg_database_ownercheck((oid), (user))
#endif

#endif							/* EVENTSRC_COMPAT_H */
