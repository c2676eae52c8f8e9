/*
 * registry.c
 *		Reads what a store's owner registered about its events, and keeps it.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "schema/registry.h"
#include "store/texts.h"

PG_FUNCTION_INFO_V1(es_registry_trigger);

static HTAB *registries = NULL;

/* counts invalidations, so that one that comes while tables are read is seen */
static uint64 invalidations = 0;

/*
 * forget_tables marks registries as out of date; a callback of the relation
 * cache.  It does not know whose table it is: tables change rarely.
 */
static void
forget_tables(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	EsRegistry *registry;

	invalidations++;
	hash_seq_init(&seq, registries);
	while ((registry = hash_seq_search(&seq)) != NULL)
	{
		bool		hit = !OidIsValid(relid);

		for (int i = 0; !hit && i < lengthof(registry->tables); i++)
			hit = (registry->tables[i] == relid);
		if (hit)
			registry->valid = false;
	}
}

/*
 * forget_functions marks the identity of upcasters as unknown; a callback of
 * the cache of functions.
 */
static void
forget_functions(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS seq;
	EsRegistry *registry;

	hash_seq_init(&seq, registries);
	while ((registry = hash_seq_search(&seq)) != NULL)
	{
		registry->identity = NULL;
		registry->changes++;
	}
}

/*
 * init_cache makes the cache at its first use.
 */
static void
init_cache(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(EsRegistry);
	ctl.hcxt = CacheMemoryContext;
	registries = hash_create("eventsrc registries", 8, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(forget_tables, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, forget_functions, (Datum) 0);
}

/*
 * compare_keys orders texts and versions.
 */
static int
compare_keys(const text *a, int32 a_version, const text *b, int32 b_version)
{
	int			a_length = VARSIZE_ANY_EXHDR(a);
	int			b_length = VARSIZE_ANY_EXHDR(b);
	int			result;

	if (a_length != b_length)
		return a_length < b_length ? -1 : 1;
	result = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), a_length);
	if (result == 0 && a_version != b_version)
		result = a_version < b_version ? -1 : 1;
	return result;
}

/*
 * compare_versions orders versions of types for qsort().
 */
static int
compare_versions(const void *a, const void *b)
{
	const EsTypeVersion *one = a;
	const EsTypeVersion *other = b;

	return compare_keys(one->event_type, one->version, other->event_type, other->version);
}

/*
 * compare_upcasters orders upcasters for qsort().
 */
static int
compare_upcasters(const void *a, const void *b)
{
	const EsUpcaster *one = a;
	const EsUpcaster *other = b;

	return compare_keys(one->event_type, one->from_version, other->event_type, other->from_version);
}

/*
 * copy_text copies a column's text; NULL for NULL.
 */
static text *
copy_text(HeapTuple tuple, TupleDesc desc, int attribute)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attribute, desc, &isnull);

	return isnull ? NULL : DatumGetTextPCopy(value);
}

/*
 * copy_int returns a column's integer.
 */
static int32
copy_int(HeapTuple tuple, TupleDesc desc, int attribute)
{
	bool		isnull;

	return DatumGetInt32(heap_getattr(tuple, attribute, desc, &isnull));
}

/*
 * read_row takes a row of one of the tables into the registry; room is how
 * many the array can hold.
 */
static void
read_row(EsRegistry *registry, int table, HeapTuple tuple, TupleDesc desc, int *room)
{
	bool		isnull;
	Datum		value;

	if (table == ES_REGISTRY_TYPES)
	{
		EsTypeVersion *version;

		if (registry->nversions == *room)
			registry->versions = repalloc_huge(registry->versions, (*room *= 2) * sizeof(EsTypeVersion));
		version = &registry->versions[registry->nversions++];
		version->event_type = copy_text(tuple, desc, 1);
		version->version = copy_int(tuple, desc, 2);
		value = heap_getattr(tuple, 3, desc, &isnull);
		version->json_schema = isnull ? NULL : DatumGetJsonbPCopy(value);
		version->schema = NULL;
	}
	else if (table == ES_REGISTRY_UPCASTERS)
	{
		EsUpcaster *upcaster;

		if (registry->nupcasters == *room)
			registry->upcasters = repalloc_huge(registry->upcasters, (*room *= 2) * sizeof(EsUpcaster));
		upcaster = &registry->upcasters[registry->nupcasters++];
		upcaster->event_type = copy_text(tuple, desc, 1);
		upcaster->from_version = copy_int(tuple, desc, 2);
		upcaster->function = copy_text(tuple, desc, 3);
		upcaster->to_type = copy_text(tuple, desc, 4);
	}
	else
	{
		text	   *name = DatumGetTextPP(heap_getattr(tuple, 1, desc, &isnull));
		JsonbValue	setting;

		if (!es_text_is(name, "strict"))
			return;
		es_json_root(DatumGetJsonbP(heap_getattr(tuple, 2, desc, &isnull)), &setting);
		registry->strict = setting.type == jbvBool && setting.val.boolean;
	}
}

/*
 * read_table reads one of the tables; an internal read, as a catalog's is.
 */
static void
read_table(EsRegistry *registry, int table, Snapshot snapshot)
{
	Relation	rel = table_open(registry->tables[table], AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;
	int			room = 8;

	while ((tuple = systable_getnext(scan)) != NULL)
		read_row(registry, table, tuple, RelationGetDescr(rel), &room);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * load reads a store's tables.
 */
static void
load(EsRegistry *registry, EsStore *store)
{
	uint64		before;
	MemoryContext context;
	MemoryContext old;
	Snapshot	snapshot;

	/* who looks at the old content may go on, until the transaction ends */
	if (registry->context)
		MemoryContextSetParent(registry->context, TopTransactionContext);
	registry->context = NULL;
	context = AllocSetContextCreate(CurrentMemoryContext, "eventsrc registry", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);

	registry->tables[ES_REGISTRY_TYPES] = store->event_types;
	registry->tables[ES_REGISTRY_UPCASTERS] = store->upcasters;
	registry->tables[ES_REGISTRY_SETTINGS] = store->settings;
	registry->strict = false;
	registry->identity = NULL;
	registry->nversions = registry->nupcasters = 0;
	registry->versions = palloc(8 * sizeof(EsTypeVersion));
	registry->upcasters = palloc(8 * sizeof(EsUpcaster));

	/* GetLatestSnapshot() is refused while parallel workers run */
	before = invalidations;
	snapshot = RegisterSnapshot(GetCatalogSnapshot(store->settings));
	for (int i = 0; i < lengthof(registry->tables); i++)
		read_table(registry, i, snapshot);
	UnregisterSnapshot(snapshot);
	qsort(registry->versions, registry->nversions, sizeof(EsTypeVersion), compare_versions);
	qsort(registry->upcasters, registry->nupcasters, sizeof(EsUpcaster), compare_upcasters);
	registry->checks = registry->strict || registry->nversions > 0;

	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, CacheMemoryContext);
	registry->context = context;
	registry->valid = (invalidations == before);
}

/*
 * es_registry_open returns the store's registry.
 */
EsRegistry *
es_registry_open(EsStore *store)
{
	static EsRegistry *last = NULL;
	EsRegistry *registry = last;
	bool		found;

	if (registry == NULL || registry->events != store->events)
	{
		if (registries == NULL)
			init_cache();
		registry = hash_search(registries, &store->events, HASH_ENTER, &found);
		if (!found)
		{
			registry->valid = false;
			registry->context = NULL;
			registry->identity = NULL;
			registry->changes = 0;
			memset(registry->tables, 0, sizeof(registry->tables));
		}
		last = registry;
	}
	/* a schema can be dropped and restored under the same name */
	if (!registry->valid || registry->tables[ES_REGISTRY_TYPES] != store->event_types)
		load(registry, store);
	return registry;
}

/*
 * es_registry_version returns the last version of a type that is not above a
 * number, NULL if there is none.
 */
EsTypeVersion *
es_registry_version(EsRegistry *registry, text *event_type, int32 upto)
{
	int			low = 0;
	int			high = registry->nversions;

	/* the first that lies above */
	while (low < high)
	{
		int			middle = (low + high) / 2;
		EsTypeVersion *version = &registry->versions[middle];

		if (compare_keys(version->event_type, version->version, event_type, upto) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || compare_keys(registry->versions[low - 1].event_type, 0, event_type, 0) != 0)
		return NULL;
	return &registry->versions[low - 1];
}

/*
 * es_registry_upcaster returns the upcaster of a type's version, NULL if there
 * is none.
 */
EsUpcaster *
es_registry_upcaster(EsRegistry *registry, text *event_type, int32 version)
{
	EsUpcaster	key = {event_type, version};

	return bsearch(&key, registry->upcasters, registry->nupcasters, sizeof(EsUpcaster), compare_upcasters);
}

/*
 * es_registry_trigger is eventsrc.registry_trigger(), after changes of the
 * tables: all backends read them anew.
 */
Datum
es_registry_trigger(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("eventsrc.registry_trigger() must be called as a trigger")));
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}
