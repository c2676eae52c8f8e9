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

/* ---- table access method (store/append_only*.c) ---- */

#include "access/tableam.h"
#include "utils/rel.h"
#include "utils/tuplesort.h"

/* 18 spells it so, and wants it in front */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 16 renamed RelFileNode, and made the answer of tuple_update an enum */
#if PG_VERSION_NUM >= 160000
#include "storage/relfilelocator.h"
typedef RelFileLocator EsFileLocator;
typedef TU_UpdateIndexes EsUpdateIndexes;
#define EsFileLocatorEquals(a, b)	RelFileLocatorEquals(a, b)
#define es_relation_locator(rel)	((rel)->rd_locator)
#define es_set_new_locator			relation_set_new_filelocator
#else
#include "storage/relfilenode.h"
typedef RelFileNode EsFileLocator;
typedef bool EsUpdateIndexes;
#define EsFileLocatorEquals(a, b)	RelFileNodeEquals(a, b)
#define es_relation_locator(rel)	((rel)->rd_node)
#define es_set_new_locator			relation_set_new_filenode
#endif

/*
 * es_tuplesort_getint64 takes the next int8 out of a sort of datums; false at
 * the end.  16 added an argument that says who owns a datum passed by
 * reference.
 */
static inline bool
es_tuplesort_getint64(Tuplesortstate *state, int64 *value)
{
	Datum		datum;
	bool		isnull;

#if PG_VERSION_NUM >= 160000
	if (!tuplesort_getdatum(state, true, false, &datum, &isnull, NULL))
		return false;
	*value = DatumGetInt64(datum);
#else
	if (!tuplesort_getdatum(state, true, &datum, &isnull, NULL))
		return false;
	*value = DatumGetInt64(datum);
#ifndef USE_FLOAT8_BYVAL
	pfree(DatumGetPointer(datum));
#endif
#endif
	return true;
}

#endif							/* EVENTSRC_COMPAT_H */
