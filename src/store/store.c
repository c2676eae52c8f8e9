/*
 * store.c
 *		Finds stores and keeps what a backend knows of their tables.
 *
 * A store is a schema whose table "events" has the trigger
 * eventsrc.append_trigger(); no registry names it, so that a dump of the
 * schema alone restores a store.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "store/position.h"
#include "store/store.h"

/* an entry of the cache; users see the EsStore at its start */
typedef struct StoreEntry
{
	EsStore		store;			/* must be first; begins with the hash key */
	MemoryContext context;		/* holds store.partitions */
	bool		positions_checked;	/* its positions are below the head */
} StoreEntry;

static HTAB *stores = NULL;

/* counts invalidations, so that one that comes while a store is read is seen */
static uint64 invalidations = 0;

/*
 * invalidate_relation marks the stores that a relation belongs to as out of
 * date; a callback of the relation cache.
 */
static void
invalidate_relation(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	StoreEntry *entry;

	invalidations++;
	hash_seq_init(&seq, stores);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		EsStore    *store = &entry->store;
		bool		hit = !OidIsValid(relid) || relid == store->events ||
			relid == store->streams || relid == store->snapshots ||
			relid == store->aggregates || relid == store->event_types ||
			relid == store->upcasters || relid == store->settings;

		for (int i = 0; !hit && i < store->npartitions; i++)
			hit = (store->partitions[i].relid == relid);
		if (hit)
			store->valid = false;
	}
}

/*
 * invalidate_all marks every store as out of date; a callback of the caches of
 * schemas and types.
 */
static void
invalidate_all(Datum arg, int cacheid, uint32 hashvalue)
{
	invalidate_relation(arg, InvalidOid);
}

/*
 * init_cache makes the cache at its first use.
 */
static void
init_cache(void)
{
	HASHCTL		ctl;

	if (stores)
		return;
	ctl.keysize = NAMEDATALEN;
	ctl.entrysize = sizeof(StoreEntry);
	ctl.hcxt = CacheMemoryContext;
	stores = hash_create("eventsrc stores", 8, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(invalidate_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, invalidate_all, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, invalidate_all, (Datum) 0);
}

/*
 * unknown_store raises the error of a name that is no store's.
 */
static void
unknown_store(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_UNKNOWN_STORE),
			 errmsg("store \"%s\" does not exist", name),
			 errdetail("No schema of this name holds an events table made by es_create_store()."),
			 errhint("Create it with SELECT es_create_store(%s), or name another one by the argument \"store\" or the setting \"eventsrc.store\".",
					 quote_literal_cstr(name))));
}

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
 * es_event_tupdesc returns the descriptor of es_event; the type cache keeps it.
 */
TupleDesc
es_event_tupdesc(void)
{
	static TupleDesc desc = NULL;
	static Oid	type = InvalidOid;

	if (desc == NULL || type != es_event_type())
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		type = es_event_type();

		/*
		 * an older copy may still be referred to; types change at upgrades
		 * only
		 */
		desc = lookup_rowtype_tupdesc_copy(type, -1);
		MemoryContextSwitchTo(old);
	}
	return desc;
}

/*
 * check_columns compares the first columns of a table with those of es_event;
 * tells whether the table has no others.
 */
static bool
check_columns(const char *store, Relation rel)
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
 * has_append_trigger tells whether a relation is a store's events table, and
 * whether it has other triggers that a direct insert would have to run before
 * the row or for the statement.
 */
static bool
has_append_trigger(Relation rel, bool *others)
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
 * load_partitions fills in the store's partitions, by time.
 */
static void
load_partitions(StoreEntry *entry, Relation events)
{
	EsStore    *store = &entry->store;
	PartitionKey key = RelationGetPartitionKey(events);
	PartitionDesc desc;
	PartitionBoundInfo bounds;

	if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
		key->partattrs[0] != ES_ATT_RECORDED_AT)
		damaged(NameStr(store->name), "Table \"events\" should be partitioned by range of \"recorded_at\".");

	desc = RelationGetPartitionDesc(events, true);
	store->npartitions = 0;
	store->shape = 0;
	store->partitions = MemoryContextAllocZero(entry->context,
											   Max(desc->nparts, 1) * sizeof(EsPartition));
	bounds = desc->boundinfo;
	if (desc->nparts == 0)
		return;

	/* datums[i] is the upper bound of partition indexes[i] */
	for (int i = 0; i < bounds->nindexes; i++)
	{
		EsPartition *partition;
		Relation	rel;
		bool		others;

		if (bounds->indexes[i] < 0)
			continue;
		partition = &store->partitions[store->npartitions];
		partition->relid = desc->oids[bounds->indexes[i]];
		partition->lower = es_partition_bound(bounds, i - 1, DT_NOBEGIN);
		partition->upper = es_partition_bound(bounds, i, DT_NOEND);

		rel = table_open(partition->relid, AccessShareLock);
		if (rel->rd_rel->relkind != RELKIND_RELATION)
			store->plain_read = store->plain_append = false;
		else
		{
			if (!check_columns(NameStr(store->name), rel))
				store->plain_append = false;
			find_indexes(rel, partition);
			if (!OidIsValid(partition->version_index) || !OidIsValid(partition->position_index))
				damaged(NameStr(store->name),
						psprintf("Partition \"%s\" lacks a valid unique index on (aggregate_type, aggregate_id, version) or on (global_position).",
								 RelationGetRelationName(rel)));
			(void) has_append_trigger(rel, &others);
			if (others)
				store->plain_append = false;
		}
		table_close(rel, AccessShareLock);
		store->shape = hash_combine64(store->shape, hash_combine64(partition->relid, partition->lower));
		store->npartitions++;
	}
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
 * find_side_tables finds and checks the store's tables other than events.
 */
static void
find_side_tables(EsStore *store)
{
	static const Oid streams[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID};
	static const Oid snapshots[] = {TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID, JSONBOID, TEXTOID};
	static const Oid aggregates[] = {TEXTOID, TEXTOID, JSONBOID, INT4OID};
	static const Oid event_types[] = {TEXTOID, INT4OID, JSONBOID};
	static const Oid upcasters[] = {TEXTOID, INT4OID, TEXTOID, TEXTOID};
	static const Oid settings[] = {TEXTOID, JSONBOID};
	const char *name = NameStr(store->name);

	store->streams = get_relname_relid("streams", store->schema);
	store->snapshots = get_relname_relid("snapshots", store->schema);
	store->aggregates = get_relname_relid("aggregates", store->schema);
	store->streams_index = check_side_table(name, "streams", store->streams,
											streams, lengthof(streams), 2);
	(void) check_side_table(name, "snapshots", store->snapshots,
							snapshots, lengthof(snapshots), 3);
	(void) check_side_table(name, "aggregates", store->aggregates,
							aggregates, lengthof(aggregates), 1);
	store->event_types = get_relname_relid("event_types", store->schema);
	store->upcasters = get_relname_relid("upcasters", store->schema);
	store->settings = get_relname_relid("settings", store->schema);
	(void) check_side_table(name, "event_types", store->event_types,
							event_types, lengthof(event_types), 2);
	(void) check_side_table(name, "upcasters", store->upcasters,
							upcasters, lengthof(upcasters), 2);
	(void) check_side_table(name, "settings", store->settings,
							settings, lengthof(settings), 1);
}

/*
 * load reads a store's tables into its entry; false if the name is no store's.
 * Takes the lock on events, which it leaves.
 */
static bool
load(StoreEntry *entry, LOCKMODE lockmode)
{
	static uint64 generation = 0;
	uint64		invalidations_before;
	EsStore    *store = &entry->store;
	Relation	events;
	bool		others;
	Oid			schema;
	Oid			relid;

	schema = get_namespace_oid(NameStr(store->name), true);
	if (!OidIsValid(schema))
		return false;
	relid = get_relname_relid("events", schema);
	if (!OidIsValid(relid))
		return false;
	if (lockmode != NoLock)
		LockRelationOid(relid, lockmode);
	invalidations_before = invalidations;
	events = try_relation_open(relid, lockmode == NoLock ? AccessShareLock : NoLock);
	if (events == NULL)
		return false;
	if (events->rd_rel->relkind != RELKIND_PARTITIONED_TABLE ||
		!has_append_trigger(events, &others))
	{
		relation_close(events, NoLock);
		return false;
	}

	/*
	 * whoever still looks at the old partitions may, until the transaction
	 * ends
	 */
	if (entry->context)
		MemoryContextSetParent(entry->context, TopTransactionContext);
	entry->context = AllocSetContextCreate(CacheMemoryContext, "eventsrc store",
										   ALLOCSET_SMALL_SIZES);
	store->npartitions = 0;

	store->schema = schema;
	store->events = relid;
	store->owner = events->rd_rel->relowner;
	find_side_tables(store);

	store->plain_read = true;
	store->plain_append = check_columns(NameStr(store->name), events) && !others &&
		events->rd_rules == NULL;
	load_partitions(entry, events);
	relation_close(events, NoLock);
	store->generation = ++generation;
	entry->positions_checked = false;
	store->valid = (invalidations == invalidations_before);
	return true;
}

/*
 * check_positions makes sure, whenever a backend has read a store's tables
 * anew, that new positions follow those that the store already holds: after
 * the restore of a dump they can lie above the sequence.
 */
static void
check_positions(StoreEntry *entry)
{
	EsStore    *store = &entry->store;

	if (entry->positions_checked || !store->plain_read || RecoveryInProgress())
		return;
	es_position_at_least(es_store_bounds(store));
	entry->positions_checked = true;
}

/*
 * lookup finds a store's entry, up to date and with events locked; NULL if
 * there is no such store.
 */
static EsStore *
lookup(const char *name, LOCKMODE lockmode)
{
	StoreEntry *entry;
	NameData	key;
	bool		found;

	init_cache();
	namestrcpy(&key, name);
	entry = hash_search(stores, NameStr(key), HASH_ENTER, &found);
	if (!found)
	{
		entry->store.valid = false;
		entry->store.events = InvalidOid;
		entry->store.npartitions = 0;
		entry->store.partitions = NULL;
		entry->context = NULL;
		entry->positions_checked = false;
	}

	/* locking a table that the transaction has locked before brings no news */
	AcceptInvalidationMessages();
	if (entry->store.valid && lockmode != NoLock)
		LockRelationOid(entry->store.events, lockmode);
	for (int tries = 0; !entry->store.valid; tries++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!load(entry, lockmode))
			return NULL;
		if (tries > 100)
			break;				/* invalidated again and again: what we read
								 * will do */
	}
	check_positions(entry);
	return &entry->store;
}

/*
 * es_store_open finds the store by name (NULL: the setting eventsrc.store),
 * checks USAGE on its schema, and locks its events table with the given mode
 * until the end of the transaction.
 */
EsStore *
es_store_open(const char *name, LOCKMODE lockmode)
{
	EsStore    *store;
	AclResult	acl;

	if (name == NULL)
		name = es_setting_store;
	if (name == NULL || name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_ES_UNKNOWN_STORE),
				 errmsg("no store is named"),
				 errhint("Name it by the argument \"store\" or the setting \"eventsrc.store\".")));

	store = lookup(name, lockmode);
	if (store == NULL)
		unknown_store(name);
	acl = es_schema_aclcheck(store->schema, GetUserId(), ACL_USAGE);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_SCHEMA, name);
	return store;
}

/*
 * es_store_refresh brings an open store up to date with what was committed until
 * now: events that the caller is to see may lie in partitions made since it was
 * opened.  Invalidates pointers to its partitions.
 */
void
es_store_refresh(EsStore *store)
{
	AcceptInvalidationMessages();
	if (!store->valid)
		(void) lookup(NameStr(store->name), AccessShareLock);
}

/*
 * es_store_name_arg reads the argument "store" of an SQL function; NULL means
 * the setting.
 */
const char *
es_store_name_arg(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : NameStr(*PG_GETARG_NAME(argno));
}

/*
 * es_store_check_acl raises 42501 unless the current user has mode on events.
 */
void
es_store_check_acl(EsStore *store, AclMode mode)
{
	AclResult	acl = pg_class_aclcheck(store->events, GetUserId(), mode);

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_TABLE,
					   quote_qualified_identifier(NameStr(store->name), "events"));
}

/*
 * es_store_of_relation finds the store whose events table, or one of whose
 * partitions, a relation is; NULL if none.  The caller has the relation
 * locked.
 */
EsStore *
es_store_of_relation(Oid relid)
{
	HASH_SEQ_STATUS seq;
	StoreEntry *entry;
	char	   *schema;

	init_cache();
	hash_seq_init(&seq, stores);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		EsStore    *store = &entry->store;
		bool		hit = (store->valid && store->events == relid);

		for (int i = 0; !hit && store->valid && i < store->npartitions; i++)
			hit = (store->partitions[i].relid == relid);
		if (hit)
		{
			hash_seq_term(&seq);
			return store;
		}
	}

	if (get_rel_relispartition(relid))
		relid = get_partition_parent(relid, true);
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return NULL;
	schema = get_namespace_name(get_rel_namespace(relid));
	if (schema == NULL || get_relname_relid("events", get_rel_namespace(relid)) != relid ||
		!es_extension_present())
		return NULL;
	return lookup(schema, AccessShareLock);
}

/*
 * es_store_find_partition finds the partition for a moment; -1 if there is
 * none.
 */
int
es_store_find_partition(EsStore *store, TimestampTz at)
{
	/* nearly always one of the last */
	for (int i = store->npartitions - 1; i >= 0; i--)
	{
		EsPartition *partition = &store->partitions[i];

		if (at >= partition->lower && at < partition->upper)
			return i;
	}
	return -1;
}
