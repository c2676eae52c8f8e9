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

/*
 * A server built against a newer libc expects strlcpy() from its headers;
 * declare it where ours do not.
 */
#if HAVE_DECL_STRLCPY
extern size_t strlcpy(char *dst, const char *src, size_t siz);
#endif

/* --- processes --- */

/* the number of this backend's PGPROC, below MaxBackends for all that append */
#if PG_VERSION_NUM >= 170000
#define es_my_proc_number()		(MyProcNumber)
#else
#define es_my_proc_number()		(MyProc->pgprocno)
#endif

/* --- dates --- */

/* DecodeDateTime() got an argument that tells more about what it could not read */
#if PG_VERSION_NUM >= 160000
#define ES_DATE_TIME_EXTRA		, &(DateTimeErrorExtra) {0}
#else
#define ES_DATE_TIME_EXTRA
#endif

/* --- privileges --- */

#if PG_VERSION_NUM >= 160000
#define es_schema_aclcheck(oid, user, mode) \
	object_aclcheck(NamespaceRelationId, (oid), (user), (mode))
#define es_proc_aclcheck(oid, user, mode) \
	object_aclcheck(ProcedureRelationId, (oid), (user), (mode))
#define es_server_aclcheck(oid, user, mode) \
	object_aclcheck(ForeignServerRelationId, (oid), (user), (mode))
#define es_class_ownercheck(oid, user) \
	object_ownercheck(RelationRelationId, (oid), (user))
#define es_database_ownercheck(oid, user) \
	object_ownercheck(DatabaseRelationId, (oid), (user))
#else
#define es_schema_aclcheck(oid, user, mode) \
	pg_namespace_aclcheck((oid), (user), (mode))
#define es_proc_aclcheck(oid, user, mode) \
	pg_proc_aclcheck((oid), (user), (mode))
#define es_server_aclcheck(oid, user, mode) \
	pg_foreign_server_aclcheck((oid), (user), (mode))
#define es_class_ownercheck(oid, user) \
	pg_class_ownercheck((oid), (user))
#define es_database_ownercheck(oid, user) \
	pg_database_ownercheck((oid), (user))
#endif

/* --- executor --- */

#if PG_VERSION_NUM >= 180000
#define es_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define es_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

#if PG_VERSION_NUM >= 160000
#define es_insert_index_tuples(relinfo, slot, estate) \
	ExecInsertIndexTuples((relinfo), (slot), (estate), false, false, NULL, NIL, false)
#else
#define es_insert_index_tuples(relinfo, slot, estate) \
	ExecInsertIndexTuples((relinfo), (slot), (estate), false, false, NULL, NIL)
#endif

/* 17 lets an index keep state over the rows of a statement */
#if PG_VERSION_NUM >= 170000
#define es_index_insert_cleanup(index, info)	index_insert_cleanup((index), (info))
#else
#define es_index_insert_cleanup(index, info)	((void) 0)
#endif

/* EvalPlanQualInit() got an argument for the relations of foreign updates */
#if PG_VERSION_NUM >= 160000
#define ES_EPQ_NO_RELIDS		, NIL
#else
#define ES_EPQ_NO_RELIDS
#endif

/* a range table of the one relation that is inserted into */
#if PG_VERSION_NUM >= 180000
#define es_init_range_table(estate, rte, perms) \
	ExecInitRangeTable((estate), list_make1(rte), (perms), bms_make_singleton(1))
#elif PG_VERSION_NUM >= 160000
#define es_init_range_table(estate, rte, perms) \
	ExecInitRangeTable((estate), list_make1(rte), (perms))
#else
#define es_init_range_table(estate, rte, perms) \
	ExecInitRangeTable((estate), list_make1(rte))
#define addRTEPermissionInfo(perms, rte)	((void) (perms))
#endif

/* --- table access method (store/append_only*.c) --- */

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

/* --- state --- */

#if PG_VERSION_NUM >= 180000
#define es_primary_key_index(relation) \
	RelationGetPrimaryKeyIndex(relation, false)
#else
#define es_primary_key_index(relation) \
	RelationGetPrimaryKeyIndex(relation)
#endif

/* --- guards --- */

#if PG_VERSION_NUM >= 160000
#define es_extension_ownercheck(oid, user) \
	object_ownercheck(ExtensionRelationId, (oid), (user))
#else
#define es_extension_ownercheck(oid, user) \
	pg_extension_ownercheck((oid), (user))
#endif

/* --- reads in FROM (read/plan.c) --- */

/* 16 tells outer joins' effects on a variable in the variable itself */
#if PG_VERSION_NUM >= 160000
#define es_build_expression_pathkey(root, expr, op, rel) \
	build_expression_pathkey((root), (expr), (op), (rel), false)
#else
#define es_build_expression_pathkey(root, expr, op, rel) \
	build_expression_pathkey((root), (expr), NULL, (op), (rel), false)
#endif

/* 18 split the header */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/* --- many rows at a time into events (append/bulk*.c) --- */

/* 16 took the privileges that a statement needs out of the range table */
#if PG_VERSION_NUM >= 160000
#define es_check_insert_permission(pstate, nsitem, columns) \
	((nsitem)->p_perminfo->requiredPerms = ACL_INSERT, \
	 (nsitem)->p_perminfo->insertedCols = (columns), \
	 (void) ExecCheckPermissions((pstate)->p_rtable, list_make1((nsitem)->p_perminfo), true))
#else
#define es_check_insert_permission(pstate, nsitem, columns) \
	((nsitem)->p_rte->requiredPerms = ACL_INSERT, \
	 (nsitem)->p_rte->insertedCols = (columns), \
	 (void) ExecCheckRTPerms((pstate)->p_rtable, true))
#endif

/* 17 overloaded random() */
#if PG_VERSION_NUM >= 170000
#define ES_F_RANDOM		F_RANDOM_
#else
#define ES_F_RANDOM		F_RANDOM
#endif

/* --- reducers as programs (state/program*.c) --- */

/* 17 renamed what tells whether the search_path still stands for the same */
#if PG_VERSION_NUM >= 170000
#define EsSearchPath				SearchPathMatcher
#define es_search_path(context)		GetSearchPathMatcher(context)
#define es_search_path_is(path)		SearchPathMatchesCurrentEnvironment(path)
#else
#define EsSearchPath				OverrideSearchPath
#define es_search_path(context)		GetOverrideSearchPath(context)
#define es_search_path_is(path)		OverrideSearchPathMatchesCurrent(path)
#endif

#endif							/* EVENTSRC_COMPAT_H */
