/*
 * guarded.c
 *		Watches changes of the objects that a store consists of.
 *
 * Everything that drops or alters an object tells the object access hook so,
 * whatever command, cascade or function it comes from: before a drop, and after
 * an alteration whose new tuple only SnapshotSelf shows, so that old and new
 * can be compared.  es_guard_harm() then decides.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/objectaddress.h"
#include "catalog/partition.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "store/guard.h"
#include "store/store.h"

/* what an index is to a store */
typedef enum IndexNeed
{
	NEED_NONE,
	NEED_VERSION,
	NEED_POSITION,
	NEED_KEY
} IndexNeed;

static object_access_hook_type previous_access_hook = NULL;

/*
 * read_row copies a catalog's row, found by the first column of an index, as a
 * snapshot (NULL: the catalogs' own) shows it; NULL if it shows none.
 */
static HeapTuple
read_row(Oid catalog, Oid index, AttrNumber column, Oid oid, Snapshot snapshot)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(rel, index, true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tuple;
}

/*
 * describe names an object in a sentence that begins with a verb.
 */
static const char *
describe(const char *verb, Oid classId, Oid objectId, int subId)
{
	ObjectAddress address;
	char	   *name;

	ObjectAddressSubSet(address, classId, objectId, subId);
	name = getObjectDescription(&address, true);
	return psprintf("%s %s", verb, name ? name : "an object that it needs");
}

/*
 * refuse_drop ends the drop of an object.  Of a table's parts the table itself
 * is named, if the command is one that drops tables.
 */
static void
refuse_drop(const EsGuarded *guarded, Oid classId, Oid objectId, int subId)
{
	bool		whole = es_guard_command_drops_tables() ||
		(classId == RelationRelationId && objectId == guarded->table && subId == 0);

	if (whole)
		es_guard_harm(guarded, ES_GUARD_HINT_DROP,
					  describe("drop", RelationRelationId, guarded->table, 0));
	else
		es_guard_harm(guarded, ES_GUARD_HINT_NONE, describe("drop", classId, objectId, subId));
}

/*
 * need_for tells what an index of a store's table is needed for.
 */
static IndexNeed
need_for(HeapTuple tuple, const EsGuarded *guarded)
{
	Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);
	int16	   *key = index->indkey.values;

	if (guarded->ncolumns != ES_NATTS)
		return index->indisprimary ? NEED_KEY : NEED_NONE;
	if (!index->indisunique || !index->indisvalid || !index->indimmediate ||
		!heap_attisnull(tuple, Anum_pg_index_indpred, NULL) ||
		!heap_attisnull(tuple, Anum_pg_index_indexprs, NULL))
		return NEED_NONE;
	if (index->indnkeyatts == 3 && key[0] == ES_ATT_AGGREGATE_TYPE &&
		key[1] == ES_ATT_AGGREGATE_ID && key[2] == ES_ATT_VERSION)
		return NEED_VERSION;
	if (index->indnkeyatts == 1 && key[0] == ES_ATT_GLOBAL_POSITION)
		return NEED_POSITION;
	return NEED_NONE;
}

/*
 * has_index tells whether a table has an index for a need, other than a given
 * one.
 */
static bool
has_index(const EsGuarded *guarded, IndexNeed need, Oid but)
{
	Relation	rel = table_open(IndexRelationId, AccessShareLock);
	bool		found = false;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(guarded->table));
	scan = systable_beginscan(rel, IndexIndrelidIndexId, true, NULL, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
		found = ((Form_pg_index) GETSTRUCT(tuple))->indexrelid != but &&
			need_for(tuple, guarded) == need;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * guard_index tells whether an index is one that its store cannot do without.
 */
static bool
guard_index(Oid indexid, EsGuarded *guarded)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	bool		needed = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (es_guarded(((Form_pg_index) GETSTRUCT(tuple))->indrelid, guarded))
	{
		IndexNeed	need = need_for(tuple, guarded);

		needed = need != NEED_NONE && !has_index(guarded, need, indexid);
	}
	ReleaseSysCache(tuple);
	return needed;
}

/*
 * see_index_altered looks at what ALTER made of an index's properties, such as
 * a constraint that is checked late.
 */
static void
see_index_altered(Oid indexid)
{
	EsGuarded	guarded;
	HeapTuple	new;

	if (!guard_index(indexid, &guarded))
		return;
	new = read_row(IndexRelationId, IndexRelidIndexId, Anum_pg_index_indexrelid, indexid,
				   SnapshotSelf);
	if (HeapTupleIsValid(new) && need_for(new, &guarded) == NEED_NONE)
		es_guard_harm(&guarded, ES_GUARD_HINT_NONE,
					  describe("make useless", RelationRelationId, indexid, 0));
}

/*
 * see_relation_dropped looks at the drop of a table, an index or a column.
 */
static void
see_relation_dropped(Oid relid, int column)
{
	char		kind = get_rel_relkind(relid);
	EsGuarded	guarded;

	if (kind == RELKIND_INDEX)
	{
		if (guard_index(relid, &guarded))
			refuse_drop(&guarded, RelationRelationId, relid, 0);
	}
	else if (es_guarded(relid, &guarded) && column <= guarded.ncolumns)
		refuse_drop(&guarded, RelationRelationId, relid, column);
}

/*
 * see_relation_altered compares a table's or index's row in pg_class with what
 * ALTER made of it.
 */
static void
see_relation_altered(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	FormData_pg_class old;
	FormData_pg_class new;
	EsGuarded	guarded;
	const char *what = NULL;

	if (!HeapTupleIsValid(tuple))
		return;
	old = *(Form_pg_class) GETSTRUCT(tuple);
	ReleaseSysCache(tuple);
	if (old.relkind == RELKIND_INDEX ? !guard_index(relid, &guarded) : !es_guarded(relid, &guarded))
		return;
	tuple = read_row(RelationRelationId, ClassOidIndexId, Anum_pg_class_oid, relid, SnapshotSelf);
	if (!HeapTupleIsValid(tuple))
		return;
	new = *(Form_pg_class) GETSTRUCT(tuple);

	/* partitions may have any name */
	if (strcmp(NameStr(old.relname), NameStr(new.relname)) != 0 &&
		(old.relkind == RELKIND_INDEX || !old.relispartition))
		what = "rename";
	else if (old.relnamespace != new.relnamespace)
		what = "change the schema of";
	else if (old.relam != new.relam)
		what = "change the access method of";
	else if (old.relpersistence != new.relpersistence)
		what = "change the persistence of";
	if (what)
		es_guard_harm(&guarded, ES_GUARD_HINT_NONE, describe(what, RelationRelationId, relid, 0));
}

/*
 * see_column_altered compares a column's row in pg_attribute with what ALTER
 * made of it.
 */
static void
see_column_altered(Oid relid, int column)
{
	EsGuarded	guarded;
	HeapTuple	tuple;
	FormData_pg_attribute old;
	FormData_pg_attribute new;
	ScanKeyData key[2];
	Relation	rel;
	SysScanDesc scan;
	bool		found;
	const char *what = NULL;

	if (!es_guarded(relid, &guarded) || column > guarded.ncolumns)
		return;
	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(column));
	if (!HeapTupleIsValid(tuple))
		return;
	memcpy(&old, GETSTRUCT(tuple), ATTRIBUTE_FIXED_PART_SIZE);
	ReleaseSysCache(tuple);

	rel = table_open(AttributeRelationId, AccessShareLock);
	ScanKeyInit(&key[0], Anum_pg_attribute_attrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	ScanKeyInit(&key[1], Anum_pg_attribute_attnum, BTEqualStrategyNumber, F_INT2EQ,
				Int16GetDatum(column));
	scan = systable_beginscan(rel, AttributeRelidNumIndexId, true, SnapshotSelf, 2, key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		memcpy(&new, GETSTRUCT(tuple), ATTRIBUTE_FIXED_PART_SIZE);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!found)
		return;

	if (strcmp(NameStr(old.attname), NameStr(new.attname)) != 0)
		what = "rename";
	else if (old.atttypid != new.atttypid || old.atttypmod != new.atttypmod ||
			 old.attcollation != new.attcollation ||
			 es_guard_command_sets_type(NameStr(old.attname)))
		what = "change the type of";
	else if (old.attnotnull && !new.attnotnull)
		what = "allow NULL in";
	else if (old.attidentity != new.attidentity || old.attgenerated != new.attgenerated)
		what = "generate values of";
	if (what)
		es_guard_harm(&guarded, ES_GUARD_HINT_NONE,
					  describe(what, RelationRelationId, relid, column));
}

/*
 * see_trigger looks at a trigger that is dropped or altered; of ours those that
 * check appends and announce changes matter.  Snapshots are a cache.
 */
static void
see_trigger(ObjectAccessType access, Oid trigger)
{
	HeapTuple	tuple;
	FormData_pg_trigger old;
	FormData_pg_trigger new;
	EsGuarded	guarded;

	tuple = read_row(TriggerRelationId, TriggerOidIndexId, Anum_pg_trigger_oid, trigger, NULL);
	if (!HeapTupleIsValid(tuple))
		return;
	memcpy(&old, GETSTRUCT(tuple), offsetof(FormData_pg_trigger, tgattr));
	if (!es_guard_needs_trigger(old.tgfoid) || !es_guarded(old.tgrelid, &guarded))
		return;

	if (access == OAT_DROP)
	{
		refuse_drop(&guarded, TriggerRelationId, trigger, 0);
		return;
	}
	tuple = read_row(TriggerRelationId, TriggerOidIndexId, Anum_pg_trigger_oid, trigger, SnapshotSelf);
	if (!HeapTupleIsValid(tuple))
		return;
	memcpy(&new, GETSTRUCT(tuple), offsetof(FormData_pg_trigger, tgattr));
	if (new.tgenabled == old.tgenabled)
		return;					/* renamed; only its function counts */
	if (new.tgenabled == TRIGGER_DISABLED || new.tgenabled == TRIGGER_FIRES_ON_REPLICA)
		es_guard_harm(&guarded, ES_GUARD_HINT_NONE, describe("disable", TriggerRelationId, trigger, 0));
	else if (new.tgenabled == TRIGGER_FIRES_ON_ORIGIN && old.tgenabled == TRIGGER_FIRES_ALWAYS)
		es_guard_harm(&guarded, ES_GUARD_HINT_ENABLE,
					  psprintf("%s for replicas", describe("disable", TriggerRelationId, trigger, 0)));
}

/*
 * fits_as_partition tells whether a table is what a partition of a store has
 * to be.  A table that the present command makes is not yet.
 */
static bool
fits_as_partition(Oid child, const EsGuarded *parent)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(child));
	EsGuarded	partition = {child, parent->events, ES_NATTS};
	bool		fits;

	if (!HeapTupleIsValid(tuple))
		return false;
	fits = ((Form_pg_class) GETSTRUCT(tuple))->relkind == RELKIND_RELATION &&
		((Form_pg_class) GETSTRUCT(tuple))->relpersistence == RELPERSISTENCE_PERMANENT &&
		((Form_pg_class) GETSTRUCT(tuple))->relam == get_table_am_oid("append_only", true);
	ReleaseSysCache(tuple);
	if (!fits || !has_index(&partition, NEED_VERSION, InvalidOid) ||
		!has_index(&partition, NEED_POSITION, InvalidOid))
		return false;

	for (int i = 1; fits && i <= ES_NATTS; i++)
	{
		char	   *want = get_attname(parent->table, i, true);
		char	   *have = get_attname(child, i, true);

		fits = want && have && strcmp(want, have) == 0 &&
			get_atttype(parent->table, i) == get_atttype(child, i);
	}
	return fits;
}

/*
 * see_inheritance looks at a child that was given to a table of a store, or
 * taken away from it.
 */
static void
see_inheritance(Oid child, Oid parent)
{
	EsGuarded	guarded;
	Relation	rel;
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		attached = false;

	if (!es_guarded(parent, &guarded))
		return;
	rel = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyInit(&key[0], Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(child));
	scan = systable_beginscan(rel, InheritsRelidSeqnoIndexId, true, SnapshotSelf, 1, key);
	while (!attached && HeapTupleIsValid(tuple = systable_getnext(scan)))
		attached = ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent == parent;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!attached)
	{
		if (es_guarded(child, &guarded))
			es_guard_harm(&guarded, ES_GUARD_HINT_NONE,
						  describe("detach", RelationRelationId, child, 0));
		else
			es_guard_harm(&guarded, ES_GUARD_HINT_NONE,
						  describe("detach a child of", RelationRelationId, parent, 0));
	}
	else if (guarded.ncolumns != ES_NATTS)
		es_guard_harm(&guarded, ES_GUARD_HINT_NONE,
					  describe("attach a child to", RelationRelationId, parent, 0));
	else if (!fits_as_partition(child, &guarded))
		es_guard_harm(&guarded, ES_GUARD_HINT_ATTACH,
					  describe("attach an unfit partition to", RelationRelationId, parent, 0));
}

/*
 * see_constraint_dropped looks at the drop of a NOT NULL constraint, which is
 * an object from 18 on; keys are looked at as indexes.
 */
static void
see_constraint_dropped(Oid constraint)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Form_pg_constraint form;
	EsGuarded	guarded;
	Datum		keys;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	if (form->contype == 'n' && es_guarded(form->conrelid, &guarded))
	{
		keys = SysCacheGetAttr(CONSTROID, tuple, Anum_pg_constraint_conkey, &isnull);
		if (!isnull && ((int16 *) ARR_DATA_PTR(DatumGetArrayTypeP(keys)))[0] <= guarded.ncolumns)
			refuse_drop(&guarded, ConstraintRelationId, constraint, 0);
	}
	ReleaseSysCache(tuple);
}

/*
 * see_default_dropped looks at DROP DEFAULT; SET DEFAULT comes as an internal
 * drop.
 */
static void
see_default_dropped(Oid attrdef)
{
	ObjectAddress column = GetAttrDefaultColumnAddress(attrdef);
	EsGuarded	guarded;

	if (OidIsValid(column.objectId) && es_guarded(column.objectId, &guarded) &&
		column.objectSubId <= guarded.ncolumns)
		refuse_drop(&guarded, AttrDefaultRelationId, attrdef, 0);
}

/*
 * object_access looks at drops and alterations of what a store can consist of.
 * What a command drops for reasons of its own, such as the old index of REINDEX
 * CONCURRENTLY, is not looked at.
 */
static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (previous_access_hook)
		previous_access_hook(access, classId, objectId, subId, arg);

	if (IsBinaryUpgrade)
		return;
	if (access == OAT_DROP)
	{
		if (arg && (((ObjectAccessDrop *) arg)->dropflags & PERFORM_DELETION_INTERNAL))
			return;
		if (classId == RelationRelationId)
			see_relation_dropped(objectId, subId);
		else if (classId == TriggerRelationId)
			see_trigger(access, objectId);
		else if (classId == ConstraintRelationId)
			see_constraint_dropped(objectId);
		else if (classId == AttrDefaultRelationId)
			see_default_dropped(objectId);
	}
	else if (access == OAT_POST_ALTER)
	{
		if (classId == RelationRelationId && subId > 0)
			see_column_altered(objectId, subId);
		else if (classId == RelationRelationId && subId == 0)
			see_relation_altered(objectId);
		else if (classId == TriggerRelationId)
			see_trigger(access, objectId);
		else if (classId == IndexRelationId)
			see_index_altered(objectId);
		else if (classId == InheritsRelationId && arg)
			see_inheritance(objectId, ((ObjectAccessPostAlter *) arg)->auxiliary_id);
	}
}

/*
 * es_guarded_install_hook installs the hook that watches objects.
 */
void
es_guarded_install_hook(void)
{
	previous_access_hook = object_access_hook;
	object_access_hook = object_access;
}
