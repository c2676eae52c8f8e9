/*
 * target.c
 *		A table that rows are written into, by the executor's routines, outside
 *		a plan; as logical replication's apply worker does
 *		(create_edata_for_relation in PostgreSQL's worker.c).
 */
#include "eventsrc.h"

#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "parser/parse_relation.h"
#include "utils/rel.h"

#include "append/target.h"

/*
 * es_target_open opens a table and its indexes for writing.  Triggers that the
 * rows queue fire in es_target_close().
 */
EsTarget *
es_target_open(Oid relid)
{
	EsTarget   *target = palloc(sizeof(EsTarget));
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List	   *perms = NIL;

	target->rel = table_open(relid, RowExclusiveLock);
	target->estate = CreateExecutorState();

	rte->rtekind = RTE_RELATION;
	rte->relid = relid;
	rte->relkind = target->rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
	addRTEPermissionInfo(&perms, rte);
	es_init_range_table(target->estate, rte, perms);

	target->relinfo = makeNode(ResultRelInfo);
	InitResultRelInfo(target->relinfo, target->rel, 1, NULL, 0);
	target->estate->es_opened_result_relations = list_make1(target->relinfo);
	target->estate->es_output_cid = GetCurrentCommandId(true);

	AfterTriggerBeginQuery();
	ExecOpenIndices(target->relinfo, false);
	return target;
}

/*
 * es_target_close fires the triggers that are due and closes the table.
 */
void
es_target_close(EsTarget *target)
{
	AfterTriggerEndQuery(target->estate);
	ExecCloseResultRelations(target->estate);
	ExecResetTupleTable(target->estate->es_tupleTable, false);
	FreeExecutorState(target->estate);
	table_close(target->rel, NoLock);
	pfree(target);
}
