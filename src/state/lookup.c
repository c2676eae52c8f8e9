/*
 * lookup.c
 *		Reads of a store's side tables (aggregates, snapshots) by primary key.
 *
 * They are internal reads, as a catalog's are: no privileges are asked, no
 * plan is made.
 */
#include "state/state.h"

#include "access/table.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

static void add_key(EsLookup *lookup, StrategyNumber strategy,
					RegProcedure procedure, Datum value);

/*
 * es_lookup_open opens the table and its primary key.
 */
void
es_lookup_open(EsLookup *lookup, Oid table)
{
	Oid			index;

	lookup->table = table_open(table, AccessShareLock);
	index = es_primary_key_index(lookup->table);
	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_ES_STORE_DAMAGED),
				 errmsg("table \"%s\" of the store has no primary key",
						RelationGetRelationName(lookup->table)),
				 errhint("Put back the primary key that es_create_store() made.")));
	lookup->index = index_open(index, AccessShareLock);
	lookup->scan = NULL;
	lookup->nkeys = 0;
}

/*
 * es_lookup_text asks that the next column of the key equals a text.
 */
void
es_lookup_text(EsLookup *lookup, text *value)
{
	add_key(lookup, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(value));
}

/*
 * es_lookup_upto asks that the next column of the key is a bigint not above
 * the value.
 */
void
es_lookup_upto(EsLookup *lookup, int64 value)
{
	add_key(lookup, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(value));
}

/*
 * es_lookup_last returns the next matching row from the highest key down, or
 * NULL.  It is valid until the next call.
 */
HeapTuple
es_lookup_last(EsLookup *lookup, Snapshot snapshot)
{
	if (lookup->scan == NULL)
		lookup->scan = systable_beginscan_ordered(lookup->table, lookup->index,
												  snapshot, lookup->nkeys,
												  lookup->keys);
	return systable_getnext_ordered(lookup->scan, BackwardScanDirection);
}

/*
 * es_lookup_value returns a column of a row, or 0 for NULL (which only the
 * registry's reducer and keep_snapshots can be).
 */
Datum
es_lookup_value(EsLookup *lookup, HeapTuple tuple, int attno)
{
	bool		isnull;
	Datum		value;

	value = heap_getattr(tuple, attno, RelationGetDescr(lookup->table), &isnull);
	return isnull ? (Datum) 0 : value;
}

/*
 * es_lookup_close ends the read; the lock on the table stays until the end of
 * the transaction.
 */
void
es_lookup_close(EsLookup *lookup)
{
	if (lookup->scan)
		systable_endscan_ordered(lookup->scan);
	index_close(lookup->index, NoLock);
	table_close(lookup->table, NoLock);
}

/*
 * add_key adds a condition on the index's next column.
 */
static void
add_key(EsLookup *lookup, StrategyNumber strategy, RegProcedure procedure,
		Datum value)
{
	int			column = lookup->nkeys++;

	ScanKeyEntryInitialize(&lookup->keys[column], 0,
						   lookup->index->rd_index->indkey.values[column],
						   strategy, InvalidOid,
						   lookup->index->rd_indcollation[column],
						   procedure, value);
}
