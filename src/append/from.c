/*
 * from.c
 *		Puts a custom scan in the place of es_append() and es_append_events() in
 *		FROM.
 *
 * A function scan keeps a function's one row in a tuplestore, which costs a
 * tenth of a whole append.  The custom scan "EventsrcAppend" keeps two numbers.
 * What a function scan guarantees is kept: the executor evaluates the call as
 * any expression (EXECUTE is checked when the plan starts), and does so once,
 * when the row is first asked for; a rescan returns the same row, unless a
 * parameter that the arguments depend on has changed; a cursor can go back.
 *
 * The function scan remains where call.c says so, and where an argument contains
 * a subquery that refers to the query: it knows all parameters of that.
 */
#include "eventsrc.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "optimizer/tlist.h"

#include "append/append.h"
#include "read/call.h"

typedef struct CallState
{
	CustomScanState css;		/* must be first */
	FuncExpr   *call;
	ExprState  *expr;
	AttrNumber *columns;		/* of the result, that the slot's are */

	bool		done;			/* it has appended */
	int64		version;
	int64		position;
	int			place;			/* 0 before the row, 1 at it, 2 after it */
} CallState;

static CustomPath *plan_call(PlannerInfo *root, RelOptInfo *rel, FuncExpr *call);
static Plan *plan_append(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
						 List *tlist, List *clauses, List *custom_plans);
static Node *create_state(CustomScan *scan);
static void begin(CustomScanState *css, EState *estate, int eflags);
static TupleTableSlot *execute(CustomScanState *css);
static TupleTableSlot *next_row(ScanState *ss);
static bool recheck(ScanState *ss, TupleTableSlot *slot);
static void append_once(CallState *state);
static void end(CustomScanState *css);
static void rescan(CustomScanState *css);
static void explain(CustomScanState *css, List *ancestors, ExplainState *es);

static const CustomPathMethods path_methods = {
	.CustomName = "EventsrcAppend",
	.PlanCustomPath = plan_append
};

static const CustomScanMethods scan_methods = {
	.CustomName = "EventsrcAppend",
	.CreateCustomScanState = create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = "EventsrcAppend",
	.BeginCustomScan = begin,
	.ExecCustomScan = execute,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain
};

/*
 * es_append_plan_calls has calls of functions that append planned here; in the
 * postmaster.
 */
void
es_append_plan_calls(void)
{
	es_call_plan_by(plan_call);
	RegisterCustomScanMethods(&scan_methods);
}

/*
 * plan_call makes the path of a function that appends.
 */
static CustomPath *
plan_call(PlannerInfo *root, RelOptInfo *rel, FuncExpr *call)
{
	CustomPath *path = NULL;

	if (es_appends(call->funcid) && !contain_subplans((Node *) call->args))
		path = es_call_path(rel, call, &path_methods);
	if (path)
		path->flags |= CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
	return path;
}

/*
 * plan_append makes the plan's node of the path.  It returns the columns that
 * are asked for, in the order of the target list, which then often is the same
 * and needs no projection.
 */
static Plan *
plan_append(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
			List *tlist, List *clauses, List *custom_plans)
{
	List	   *exprs = list_copy(rel->reltarget->exprs);
	List	   *columns = NIL;
	List	   *vars;
	ListCell   *cell;

	clauses = extract_actual_clauses(clauses, false);
	vars = pull_var_clause((Node *) list_concat_copy(tlist, list_concat_copy(clauses, exprs)),
						   PVC_RECURSE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS |
						   PVC_RECURSE_PLACEHOLDERS);
	foreach(cell, vars)
	{
		Var		   *var = lfirst_node(Var, cell);

		/* others are parameters by the time that the plan runs */
		if (var->varno == rel->relid && !tlist_member((Expr *) var, columns))
			columns = lappend(columns, makeTargetEntry((Expr *) copyObject(var),
													   list_length(columns) + 1, NULL, false));
	}

	return es_call_plan(path, tlist, clauses, columns, &scan_methods);
}

/*
 * create_state makes the executor's node.
 */
static Node *
create_state(CustomScan *scan)
{
	CallState  *state = palloc0(sizeof(CallState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

/*
 * begin prepares the call.
 */
static void
begin(CustomScanState *css, EState *estate, int eflags)
{
	CallState  *state = (CallState *) css;
	CustomScan *scan = (CustomScan *) css->ss.ps.plan;
	ListCell   *cell;
	int			i = 0;

	state->call = linitial_node(FuncExpr, scan->custom_exprs);
	state->expr = ExecInitExpr((Expr *) state->call, &css->ss.ps);
	state->columns = palloc(list_length(scan->custom_scan_tlist) * sizeof(AttrNumber));
	foreach(cell, scan->custom_scan_tlist)
		state->columns[i++] = castNode(Var, lfirst_node(TargetEntry, cell)->expr)->varattno;
}

/*
 * execute returns the next row.
 */
static TupleTableSlot *
execute(CustomScanState *css)
{
	return ExecScan(&css->ss, next_row, recheck);
}

/*
 * recheck has nothing to check: the plan keeps no rows of ours to be checked
 * after a wait (call.c).
 */
static bool
recheck(ScanState *ss, TupleTableSlot *slot)
{
	return true;
}

/*
 * next_row returns the row, if it is the next in the executor's direction.
 */
static TupleTableSlot *
next_row(ScanState *ss)
{
	CallState  *state = (CallState *) ss;
	TupleTableSlot *slot = ss->ss_ScanTupleSlot;

	if (!state->done)
		append_once(state);
	if (ScanDirectionIsForward(ss->ps.state->es_direction))
		state->place = Min(state->place + 1, 2);
	else
		state->place = Max(state->place - 1, 0);

	ExecClearTuple(slot);
	if (state->place != 1)
		return slot;
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		slot->tts_isnull[i] = false;
		if (state->columns[i] == 1)
			slot->tts_values[i] = Int64GetDatum(state->version);
		else if (state->columns[i] == 2)
			slot->tts_values[i] = Int64GetDatum(state->position);
		else
		{
			MemoryContext old = MemoryContextSwitchTo(ss->ps.ps_ExprContext->ecxt_per_tuple_memory);

			slot->tts_values[i] = es_append_row(state->version, state->position);
			MemoryContextSwitchTo(old);
		}
	}
	return ExecStoreVirtualTuple(slot);
}

/*
 * append_once calls the function and keeps its result.
 */
static void
append_once(CallState *state)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	HeapTupleHeader row;
	bool		isnull;

	/* our function returns a row, and no NULL (call.c) */
	row = DatumGetHeapTupleHeader(ExecEvalExprSwitchContext(state->expr, econtext, &isnull));
	state->version = DatumGetInt64(GetAttributeByNum(row, 1, &isnull));
	state->position = DatumGetInt64(GetAttributeByNum(row, 2, &isnull));
	state->done = true;
}

/*
 * end has nothing to end.
 */
static void
end(CustomScanState *css)
{
}

/*
 * rescan begins anew: with the row that there is, unless the arguments have
 * changed.
 */
static void
rescan(CustomScanState *css)
{
	CallState  *state = (CallState *) css;

	ExecScanReScan(&css->ss);
	if (css->ss.ps.chgParam &&
		es_call_depends_on((Node *) state->call->args, css->ss.ps.chgParam))
		state->done = false;
	state->place = 0;
}

/*
 * explain shows the function and its arguments.
 */
static void
explain(CustomScanState *css, List *ancestors, ExplainState *es)
{
	es_call_explain(((CallState *) css)->call, css, ancestors, es);
}
