/*
 * store.c
 *		Finds stores and keeps what a backend knows of their tables.
 *
 * A store is a schema whose table "events" has the trigger
 * eventsrc.append_trigger(); no registry names it, so that a dump of the
 * schema alone restores a store.
 */
#include "eventsrc.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "store/position.h"
#include "store/store.h"
#include "store/tables.h"

/* an entry of the cache; users see the EsStore at its start */
typedef struct StoreEntry
{
	EsStore		store;			/* must be first; begins with the hash key */
	MemoryContext context;		/* holds store.partitions */
	bool		positions_checked;	/* its positions are below the head */
	bool		sides_valid;	/* there was no news of the other tables */
	uint32		schema_hash;	/* of the schema's entry in its cache */
} StoreEntry;

static HTAB *stores = NULL;

/* of es_event's entry in the cache of types */
static uint32 event_type_hash = 0;

/* counts invalidations, so that one that comes while a store is read is seen */
uint64		es_store_invalidations = 0;

/*
 * forget_partition notes that a partition of a store may have changed
 * (InvalidOid: any); tells whether the store has it.
 */
static bool
forget_partition(EsStore *store, Oid relid)
{
	bool		found = false;

	for (int i = 0; i < store->npartitions; i++)
	{
		if (OidIsValid(relid) && store->partitions[i].relid != relid)
			continue;
		store->partitions[i].valid = false;
		found = true;
	}
	return found;
}

/*
 * invalidate_relation marks the stores that a relation belongs to as out of
 * date; a callback of the relation cache.
 */
static void
invalidate_relation(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	StoreEntry *entry;

	es_store_invalidations++;
	hash_seq_init(&seq, stores);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		EsStore    *store = &entry->store;
		bool		hit = !OidIsValid(relid) || relid == store->events;

		if (!OidIsValid(relid) || es_tables_is_side(store, relid))
		{
			entry->sides_valid = false;
			hit = true;
		}
		if (forget_partition(store, relid))
			hit = true;
		if (hit)
			store->valid = false;
	}
}

/*
 * invalidate_schema marks the stores in a schema as out of date; a callback of
 * the cache of schemas.
 */
static void
invalidate_schema(Datum arg, int cacheid, uint32 hash)
{
	HASH_SEQ_STATUS seq;
	StoreEntry *entry;

	es_store_invalidations++;
	hash_seq_init(&seq, stores);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (hash == 0 || hash == entry->schema_hash)
			entry->store.valid = false;
	}
}

/*
 * invalidate_type marks every store as out of date when the type of events has
 * changed; a callback of the cache of types.  Every new table makes some.
 */
static void
invalidate_type(Datum arg, int cacheid, uint32 hash)
{
	if (hash == 0 || hash == event_type_hash)
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
	CacheRegisterSyscacheCallback(NAMESPACEOID, invalidate_schema, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, invalidate_type, (Datum) 0);
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
	EsPartition *known = store->partitions;
	int			nknown = store->npartitions;
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
	invalidations_before = es_store_invalidations;
	events = try_relation_open(relid, lockmode == NoLock ? AccessShareLock : NoLock);
	if (events == NULL)
		return false;
	if (events->rd_rel->relkind != RELKIND_PARTITIONED_TABLE ||
		!es_tables_has_trigger(events, &others))
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
	store->partitions = NULL;
	store->npartitions = 0;

	if (store->schema != schema || store->events != relid)
	{
		entry->sides_valid = false;
		nknown = 0;
	}
	store->schema = schema;
	store->events = relid;
	store->owner = events->rd_rel->relowner;
	entry->schema_hash = GetSysCacheHashValue1(NAMESPACEOID, ObjectIdGetDatum(schema));
	event_type_hash = GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(es_event_type()));
	if (!entry->sides_valid)
	{
		es_tables_find_side(store);
		entry->sides_valid = true;
	}

	store->plain_read = true;
	store->plain_append = es_tables_check_columns(NameStr(store->name), events) && !others &&
		events->rd_rules == NULL;
	es_tables_find_partitions(store, events, entry->context, known, nknown);
	relation_close(events, NoLock);
	store->generation = ++generation;
	entry->positions_checked = false;
	store->valid = (es_store_invalidations == invalidations_before);
	if (!store->valid)
	{
		/* it may have been about anything that was looked at */
		entry->sides_valid = false;
		(void) forget_partition(store, InvalidOid);
	}
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
		MemSet((char *) entry + NAMEDATALEN, 0, sizeof(StoreEntry) - NAMEDATALEN);

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
 * has_relation tells whether a relation is a store's events table or one of its
 * partitions, as far as is known.
 */
static bool
has_relation(const EsStore *store, Oid relid)
{
	if (!store->valid)
		return false;
	for (int i = store->npartitions - 1; i >= 0; i--)
	{
		if (store->partitions[i].relid == relid)
			return true;
	}
	return store->events == relid;
}

/*
 * es_store_of_relation finds the store whose events table, or one of whose
 * partitions, a relation is; NULL if none.  The caller has the relation
 * locked.
 */
EsStore *
es_store_of_relation(Oid relid)
{
	static EsStore *last = NULL;
	HASH_SEQ_STATUS seq;
	StoreEntry *entry;
	char	   *schema;

	/* entries stay where they are */
	if (last && has_relation(last, relid))
		return last;
	init_cache();
	hash_seq_init(&seq, stores);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (has_relation(&entry->store, relid))
		{
			hash_seq_term(&seq);
			last = &entry->store;
			return last;
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
