/*
 * tables.h
 *		What store.c asks about a store's tables.
 */
#ifndef EVENTSRC_TABLES_H
#define EVENTSRC_TABLES_H

#include "store/store.h"

#include "utils/rel.h"

extern bool es_tables_check_columns(const char *store, Relation rel);
extern bool es_tables_has_trigger(Relation rel, bool *others);
extern bool es_tables_is_side(const EsStore *store, Oid relid);
extern void es_tables_find_side(EsStore *store);
extern void es_tables_find_partitions(EsStore *store, Relation events, MemoryContext context,
									  const EsPartition *known, int nknown);

/* counts news from the relation cache */
extern uint64 es_store_invalidations;

#endif							/* EVENTSRC_TABLES_H */
