/*
 * bulk_plan.c
 *		INSERT ... SELECT into a store's events, many rows at a time: the custom
 *		scan "EventsrcInsert" stands in the place of ModifyTable, see bulk.c.
 *
 * The planner makes its plan as always.  Where nothing but inserting is asked
 * for, the custom scan becomes the top of it, and keeps the ModifyTable: if the
 * rows may not be written many at a time when the statement is run (another
 * user, session_replication_role, the setting), it does the work.
 */
#include "eventsrc.h"

#include "access/table.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "append/bulk.h"

typedef struct InsertState
{
	CustomScanState css;		/* must be first */
	EsStore    *store;
	PlanState  *rows;			/* NULL: ModifyTable does the work */
	PlanState  *modify;
	bool		done;
} InsertState;

static planner_hook_type previous_planner = NULL;

static PlannedStmt *plan(Query *parse, const char *query, int options, ParamListInfo params);
static bool is_plain_insert(Query *parse);
static void replace_top(PlannedStmt *statement);
static bool has_columns_of_events(List *targets);
static Node *create_state(CustomScan *scan);
static void begin(CustomScanState *css, EState *estate, int eflags);
static TupleTableSlot *execute(CustomScanState *css);
static void insert_rows(InsertState *state);
static void end(CustomScanState *css);
static void rescan(CustomScanState *css);
static void explain(CustomScanState *css, List *ancestors, ExplainState *es);

static const CustomScanMethods scan_methods = {
	.CustomName = "EventsrcInsert",
	.CreateCustomScanState = create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = "EventsrcInsert",
	.BeginCustomScan = begin,
	.ExecCustomScan = execute,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain
};

/*
 * es_bulk_install_hooks installs the planner's hook in the postmaster.
 */
void
es_bulk_install_hooks(void)
{
	previous_planner = planner_hook;
	planner_hook = plan;
	RegisterCustomScanMethods(&scan_methods);
}

/*
 * plan plans a statement.
 */
static PlannedStmt *
plan(Query *parse, const char *query, int options, ParamListInfo params)
{
	/* the planner changes the query */
	bool		plain = parse->commandType == CMD_INSERT && is_plain_insert(parse);
	PlannedStmt *statement = previous_planner ? previous_planner(parse, query, options, params)
		: standard_planner(parse, query, options, params);

	if (plain)
		replace_top(statement);
	return statement;
}

/*
 * is_plain_insert tells whether a query does nothing but insert into a store's
 * events, and could not tell when each row is written.
 */
static bool
is_plain_insert(Query *parse)
{
	RangeTblEntry *target;
	EsStore    *store;

	if (!es_setting_bulk_insert || parse->resultRelation == 0 || parse->returningList != NIL ||
		parse->onConflict != NULL || parse->hasModifyingCTE || parse->rowMarks != NIL ||
		parse->withCheckOptions != NIL)
		return false;
	target = rt_fetch(parse->resultRelation, parse->rtable);
	if (target->rtekind != RTE_RELATION || target->relkind != RELKIND_PARTITIONED_TABLE)
		return false;
	store = es_store_of_relation(target->relid);
	return store && store->events == target->relid && store->plain_append &&
		es_bulk_harmless((Node *) parse);
}

/*
 * replace_top puts the custom scan in the place of a plan's ModifyTable.
 */
static void
replace_top(PlannedStmt *statement)
{
	ModifyTable *modify = (ModifyTable *) statement->planTree;
	Plan	   *rows;
	CustomScan *scan;

	if (!IsA(modify, ModifyTable) || modify->operation != CMD_INSERT ||
		list_length(modify->resultRelations) != 1 || modify->withCheckOptionLists != NIL ||
		modify->returningLists != NIL || modify->rowMarks != NIL ||
		modify->onConflictAction != ONCONFLICT_NONE)
		return;
	rows = outerPlan(modify);
	/* VALUES of one row are as well inserted by themselves */
	if ((IsA(rows, Result) && outerPlan(rows) == NULL) || !has_columns_of_events(rows->targetlist))
		return;

	scan = makeNode(CustomScan);
	scan->scan.plan = modify->plan;
	scan->scan.plan.type = T_CustomScan;
	scan->scan.plan.targetlist = NIL;
	scan->scan.plan.qual = NIL;
	scan->scan.plan.lefttree = NULL;
	scan->scan.plan.righttree = NULL;
	scan->custom_plans = list_make1(modify);
	scan->custom_private =
		list_make1_oid(rt_fetch(linitial_int(modify->resultRelations), statement->rtable)->relid);
	scan->methods = &scan_methods;
	/* they are the scan's now */
	modify->plan.initPlan = NIL;
	statement->planTree = (Plan *) scan;
}

/*
 * has_columns_of_events tells whether a plan's results are the columns of
 * events, and nothing else.
 */
static bool
has_columns_of_events(List *targets)
{
	TupleDesc	desc = es_event_tupdesc();
	ListCell   *cell;
	int			n = 0;

	if (list_length(targets) != ES_NATTS)
		return false;
	foreach(cell, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, cell);

		if (target->resjunk || target->resno != n + 1 ||
			exprType((Node *) target->expr) != TupleDescAttr(desc, n)->atttypid)
			return false;
		n++;
	}
	return true;
}

/*
 * create_state makes the executor's node.
 */
static Node *
create_state(CustomScan *scan)
{
	InsertState *state = palloc0(sizeof(InsertState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

/*
 * begin decides who does the work, and prepares it.
 */
static void
begin(CustomScanState *css, EState *estate, int eflags)
{
	InsertState *state = (InsertState *) css;
	CustomScan *scan = (CustomScan *) css->ss.ps.plan;
	ModifyTable *modify = linitial_node(ModifyTable, scan->custom_plans);

	state->store = es_store_of_relation(linitial_oid(scan->custom_private));
	if (state->store && es_bulk_usable(state->store))
	{
		state->rows = ExecInitNode(outerPlan(modify), estate, eflags);
		css->custom_ps = list_make1(state->rows);
	}
	else
	{
		state->modify = ExecInitNode((Plan *) modify, estate, eflags);
		css->custom_ps = list_make1(state->modify);
	}
}

/*
 * execute inserts all rows and returns none.
 */
static TupleTableSlot *
execute(CustomScanState *css)
{
	InsertState *state = (InsertState *) css;

	if (state->modify)
		return ExecProcNode(state->modify);
	if (!state->done)
		insert_rows(state);
	state->done = true;
	return NULL;
}

/*
 * insert_rows inserts all rows.
 */
static void
insert_rows(InsertState *state)
{
	EState	   *estate = state->css.ss.ps.state;
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	EsBulk	   *bulk = palloc(sizeof(EsBulk));
	Datum		values[ES_NATTS];
	bool		nulls[ES_NATTS];
	TupleTableSlot *slot;

	es_bulk_begin(bulk, state->store, false);
	for (;;)
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		ResetExprContext(econtext);
		slot = ExecProcNode(state->rows);
		if (TupIsNull(slot))
			break;
		slot_getallattrs(slot);
		memcpy(values, slot->tts_values, sizeof(values));
		memcpy(nulls, slot->tts_isnull, sizeof(nulls));
		old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
		es_bulk_add(bulk, values, nulls, 0);
		MemoryContextSwitchTo(old);
		estate->es_processed++;
	}
	es_bulk_end(bulk);
	pfree(bulk);
}

/*
 * end ends the node.
 */
static void
end(CustomScanState *css)
{
	ExecEndNode(linitial(css->custom_ps));
}

/*
 * rescan begins anew; nothing above an INSERT would ask for that.
 */
static void
rescan(CustomScanState *css)
{
	ExecReScan(linitial(css->custom_ps));
	((InsertState *) css)->done = false;
}

/*
 * explain shows the table.
 */
static void
explain(CustomScanState *css, List *ancestors, ExplainState *es)
{
	Oid			events = linitial_oid(((CustomScan *) css->ss.ps.plan)->custom_private);

	ExplainPropertyText("Insert Into",
						quote_qualified_identifier(get_namespace_name(get_rel_namespace(events)),
												   get_rel_name(events)), es);
}
