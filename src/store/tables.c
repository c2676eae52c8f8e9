/*
 * tables.c
 *		Looks at a store's tables: whether they are as eventsrc made them, and
 *		what else is on them.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "store/tables.h"

/*
 * damaged raises the error of a store whose tables were changed so that
 * eventsrc cannot use them.
 */
static void
damaged(const char *store, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_STORE_DAMAGED),
			 errmsg("store \"%s\" is not as eventsrc made it", store),
			 errdetail("%s", what),
			 errhint("Undo the change, or restore the store from a dump.")));
}

/*
 * es_tables_check_columns compares the first columns of a table with those of
 * es_event; tells whether the table has no others.
 */
bool
es_tables_check_columns(const char *store, Relation rel)
{
	TupleDesc	want = es_event_tupdesc();
	TupleDesc	have = RelationGetDescr(rel);

	for (int i = 0; i < ES_NATTS; i++)
	{
		if (i >= have->natts ||
			TupleDescAttr(have, i)->attisdropped ||
			TupleDescAttr(have, i)->atttypid != TupleDescAttr(want, i)->atttypid ||
			strcmp(NameStr(TupleDescAttr(have, i)->attname),
				   NameStr(TupleDescAttr(want, i)->attname)) != 0)
			damaged(store, psprintf("Column %d of table \"%s\" should be \"%s\".",
									i + 1, RelationGetRelationName(rel),
									NameStr(TupleDescAttr(want, i)->attname)));
	}
	return have->natts == ES_NATTS;
}

/*
 * es_tables_has_trigger tells whether a relation is a store's events table, and
 * whether it has other triggers that a direct insert would have to run before
 * the row or for the statement.
 */
bool
es_tables_has_trigger(Relation rel, bool *others)
{
	TriggerDesc *triggers = rel->trigdesc;
	bool		found = false;

	*others = false;
	if (triggers == NULL)
		return false;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (trigger->tgfoid == es_append_trigger())
			found = true;
		else if (TRIGGER_FOR_INSERT(trigger->tgtype) &&
				 (!TRIGGER_FOR_ROW(trigger->tgtype) || !TRIGGER_FOR_AFTER(trigger->tgtype)))
			*others = true;
	}
	return found;
}

/*
 * find_indexes looks for the two indexes of a partition that appends and reads
 * go through.
 */
static void
find_indexes(Relation rel, EsPartition *partition)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (index->indisunique && index->indisvalid && index->indimmediate &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
			heap_attisnull(tuple, Anum_pg_index_indexprs, NULL))
		{
			int16	   *key = index->indkey.values;

			if (index->indnkeyatts == 3 && key[0] == ES_ATT_AGGREGATE_TYPE &&
				key[1] == ES_ATT_AGGREGATE_ID && key[2] == ES_ATT_VERSION)
				partition->version_index = index->indexrelid;
			else if (index->indnkeyatts == 1 && key[0] == ES_ATT_GLOBAL_POSITION)
				partition->position_index = index->indexrelid;
		}
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
}

/*
 * look_at_partition finds out about one partition.
 */
static void
look_at_partition(EsStore *store, EsPartition *partition)
{
	Relation	rel = table_open(partition->relid, AccessShareLock);
	uint64		before = es_store_invalidations;
	bool		others = false;

	partition->plain_read = (rel->rd_rel->relkind == RELKIND_RELATION);
	partition->plain_append = partition->plain_read;
	if (partition->plain_read)
	{
		if (!es_tables_check_columns(NameStr(store->name), rel))
			partition->plain_append = false;
		find_indexes(rel, partition);
		if (!OidIsValid(partition->version_index) || !OidIsValid(partition->position_index))
			damaged(NameStr(store->name),
					psprintf("Partition \"%s\" lacks a valid unique index on (aggregate_type, aggregate_id, version) or on (global_position).",
							 RelationGetRelationName(rel)));
		(void) es_tables_has_trigger(rel, &others);
		if (others)
			partition->plain_append = false;
	}
	table_close(rel, AccessShareLock);
	partition->valid = (es_store_invalidations == before);
}

/*
 * find_known finds a partition among those that were looked at before; NULL if
 * it was not, or has changed since.
 */
static const EsPartition *
find_known(const EsPartition *partition, const EsPartition *known, int nknown, int guess)
{
	for (int i = 0; i < nknown; i++)
	{
		const EsPartition *one = &known[(guess + i) % nknown];

		if (one->relid == partition->relid)
			return one->valid && one->lower == partition->lower &&
				one->upper == partition->upper ? one : NULL;
	}
	return NULL;
}

/*
 * es_tables_find_partitions fills in the store's partitions, by time, into the
 * given memory context.  Of those that are known and have not changed, what was
 * found out holds.
 */
void
es_tables_find_partitions(EsStore *store, Relation events, MemoryContext context,
						  const EsPartition *known, int nknown)
{
	PartitionKey key = RelationGetPartitionKey(events);
	PartitionDesc desc;
	PartitionBoundInfo bounds;

	if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
		key->partattrs[0] != ES_ATT_RECORDED_AT)
		damaged(NameStr(store->name), "Table \"events\" should be partitioned by range of \"recorded_at\".");

	desc = RelationGetPartitionDesc(events, true);
	store->npartitions = 0;
	store->shape = 0;
	store->partitions = MemoryContextAllocZero(context, Max(desc->nparts, 1) * sizeof(EsPartition));
	bounds = desc->boundinfo;
	if (desc->nparts == 0)
		return;

	/* datums[i] is the upper bound of partition indexes[i] */
	for (int i = 0; i < bounds->nindexes; i++)
	{
		EsPartition *partition = &store->partitions[store->npartitions];
		const EsPartition *same;

		if (bounds->indexes[i] < 0)
			continue;
		partition->relid = desc->oids[bounds->indexes[i]];
		partition->lower = es_partition_bound(bounds, i - 1, DT_NOBEGIN);
		partition->upper = es_partition_bound(bounds, i, DT_NOEND);
		same = find_known(partition, known, nknown, store->npartitions);
		if (same)
			*partition = *same;
		else
			look_at_partition(store, partition);

		store->plain_read = store->plain_read && partition->plain_read;
		store->plain_append = store->plain_append && partition->plain_append;
		store->shape = hash_combine64(store->shape, hash_combine64(partition->relid, partition->lower));
		store->npartitions++;
	}
}

/* a table of the store other than events */
typedef struct SideTable
{
	const char *name;
	size_t		relid;			/* offset in EsStore */
	int			nkeys;			/* columns of the primary key, the first ones */
	int			ncolumns;
	Oid			types[6];
} SideTable;

static const SideTable side_tables[] = {
	{"streams", offsetof(EsStore, streams), 2, 5,
	{TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID}},
	{"snapshots", offsetof(EsStore, snapshots), 3, 6,
	{TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID, JSONBOID, TEXTOID}},
	{"aggregates", offsetof(EsStore, aggregates), 1, 4,
	{TEXTOID, TEXTOID, JSONBOID, INT4OID}},
	{"event_types", offsetof(EsStore, event_types), 2, 3,
	{TEXTOID, INT4OID, JSONBOID}},
	{"upcasters", offsetof(EsStore, upcasters), 2, 4,
	{TEXTOID, INT4OID, TEXTOID, TEXTOID}},
	{"settings", offsetof(EsStore, settings), 1, 2,
	{TEXTOID, JSONBOID}},
};

/*
 * side_relid gives the place of a side table's OID in a store.
 */
static Oid *
side_relid(const EsStore *store, const SideTable *side)
{
	return (Oid *) ((char *) store + side->relid);
}

/*
 * es_tables_is_side tells whether a relation is one of the store's tables other
 * than events.
 */
bool
es_tables_is_side(const EsStore *store, Oid relid)
{
	for (int i = 0; i < lengthof(side_tables); i++)
	{
		if (relid == *side_relid(store, &side_tables[i]))
			return true;
	}
	return false;
}

/*
 * check_side_table makes sure that a table of the store has the columns that
 * are read and written without asking, and returns its primary key, on the
 * first nkeys of them.
 */
static Oid
check_side_table(const char *store, const char *name, Oid relid,
				 const Oid *types, int ncolumns, int nkeys)
{
	Relation	rel;
	TupleDesc	desc;
	Oid			primary_key;
	bool		good;

	if (!OidIsValid(relid))
		damaged(store, psprintf("Table \"%s\" is missing.", name));
	rel = table_open(relid, AccessShareLock);
	desc = RelationGetDescr(rel);
	good = rel->rd_rel->relkind == RELKIND_RELATION && desc->natts >= ncolumns;
	for (int i = 0; good && i < ncolumns; i++)
		good = !TupleDescAttr(desc, i)->attisdropped &&
			TupleDescAttr(desc, i)->atttypid == types[i];

	primary_key = good ? es_primary_key_index(rel) : InvalidOid;
	if (OidIsValid(primary_key))
	{
		Relation	index = index_open(primary_key, AccessShareLock);

		good = index->rd_index->indnkeyatts == nkeys;
		for (int i = 0; good && i < nkeys; i++)
			good = index->rd_index->indkey.values[i] == i + 1;
		index_close(index, AccessShareLock);
	}
	table_close(rel, AccessShareLock);
	if (!good || !OidIsValid(primary_key))
		damaged(store, psprintf("Table \"%s\" has other columns or another primary key.", name));
	return primary_key;
}

/*
 * es_tables_find_side finds and checks the store's tables other than events.
 */
void
es_tables_find_side(EsStore *store)
{
	const char *name = NameStr(store->name);

	for (int i = 0; i < lengthof(side_tables); i++)
	{
		const SideTable *side = &side_tables[i];
		Oid			relid = get_relname_relid(side->name, store->schema);
		Oid			primary_key = check_side_table(name, side->name, relid, side->types,
												   side->ncolumns, side->nkeys);

		*side_relid(store, side) = relid;
		if (relid == store->streams)
			store->streams_index = primary_key;
	}
}
