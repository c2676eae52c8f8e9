/*
 * ensure.c
 *		Has the present month's partition made before an INSERT or COPY into an
 *		events table begins; once it runs, its partitions are fixed.  A COPY of
 *		many rows at a time begins here, too.
 */
#include "eventsrc.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parsetree.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "append/bulk.h"

static ExecutorStart_hook_type previous_executor_start = NULL;
static ProcessUtility_hook_type previous_process_utility = NULL;

/*
 * ensure_partition makes the present partition of a relation, if it is an
 * events table that lacks it.
 */
static void
ensure_partition(Oid relid)
{
	EsStore    *store;

	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE || XactReadOnly)
		return;
	store = es_store_of_relation(relid);
	if (store)
		(void) es_store_partition(store, GetCurrentTimestamp());
}

/*
 * executor_start looks at the targets of an INSERT.
 */
static void
executor_start(QueryDesc *query, int eflags)
{
	if (query->operation == CMD_INSERT && !(eflags & EXEC_FLAG_EXPLAIN_ONLY))
	{
		ListCell   *cell;

		foreach(cell, query->plannedstmt->resultRelations)
		{
			RangeTblEntry *rte = rt_fetch(lfirst_int(cell), query->plannedstmt->rtable);

			if (rte->relkind == RELKIND_PARTITIONED_TABLE)
				ensure_partition(rte->relid);
		}
	}
	if (previous_executor_start)
		previous_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/*
 * process_utility looks at the target of a COPY FROM.
 */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	if (IsA(pstmt->utilityStmt, CopyStmt))
	{
		CopyStmt   *copy = (CopyStmt *) pstmt->utilityStmt;

		if (copy->is_from && copy->relation)
		{
			Oid			relid = RangeVarGetRelid(copy->relation, NoLock, true);

			if (OidIsValid(relid))
				ensure_partition(relid);
			if (es_bulk_copy(copy, query, completion))
				return;
		}
	}
	if (previous_process_utility)
		previous_process_utility(pstmt, query, read_only_tree, context, params, environment,
								 dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
								dest, completion);
}

/*
 * es_append_install_hooks installs the hooks of this file and of others of the
 * folder.
 */
void
es_append_install_hooks(void)
{
	previous_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	previous_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	es_append_plan_calls();
	es_bulk_install_hooks();
	es_attach_install_hook();
}
