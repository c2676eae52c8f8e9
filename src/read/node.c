/*
 * node.c
 *		The custom scan "EventsrcRead": returns events as they are read.
 *
 * What a function scan guarantees is kept: EXECUTE is checked when the executor
 * starts; the arguments are computed, and the snapshot and the safe position
 * taken, at the first row; a rescan returns the same events, unless a parameter
 * that the arguments depend on has changed.
 */
#include "eventsrc.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "read/call.h"
#include "read/read.h"
#include "read/scan.h"

typedef struct ReadState
{
	CustomScanState css;		/* must be first */
	EsReader	reader;
	FuncExpr   *call;
	int			nargs;
	ExprState **args;			/* NULL: a constant */
	FunctionCallInfo fcinfo;	/* holds the arguments' values */
	int			ncolumns;		/* so many of the columns are wanted */
	bool		whole_row;		/* and the row as one value */
	bool		as_stored;		/* the rows of the table do as they are */

	MemoryContext context;		/* holds the read */
	EsRead	   *read;			/* NULL: not begun */
	bool		restart;		/* before the next row */
	Oid			user;			/* for whom it began */
	int			security;
} ReadState;

static Node *create_state(CustomScan *scan);
static void begin(CustomScanState *css, EState *estate, int eflags);
static void find_columns(ReadState *state);
static bool note_column(Node *node, ReadState *state);
static void check_execute(Oid function);
static TupleTableSlot *execute(CustomScanState *css);
static TupleTableSlot *next_event(ScanState *ss);
static bool recheck(ScanState *ss, TupleTableSlot *slot);
static void begin_read(ReadState *state);
static TupleTableSlot *read_one(ReadState *state);
static TupleTableSlot *read_as(ReadState *state);
static void end_read(ReadState *state);
static void end(CustomScanState *css);
static void rescan(CustomScanState *css);
static void explain(CustomScanState *css, List *ancestors, ExplainState *es);

const CustomScanMethods es_read_scan_methods = {
	.CustomName = "EventsrcRead",
	.CreateCustomScanState = create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = "EventsrcRead",
	.BeginCustomScan = begin,
	.ExecCustomScan = execute,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain
};

/*
 * create_state makes the executor's node.
 */
static Node *
create_state(CustomScan *scan)
{
	ReadState  *state = palloc0(sizeof(ReadState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

/*
 * begin prepares what does not need the arguments' values.
 */
static void
begin(CustomScanState *css, EState *estate, int eflags)
{
	ReadState  *state = (ReadState *) css;
	FuncExpr   *call = linitial_node(FuncExpr, ((CustomScan *) css->ss.ps.plan)->custom_exprs);
	ListCell   *cell;
	int			i = 0;

	state->reader = es_reader_of(call->funcid);
	state->call = call;
	check_execute(call->funcid);

	state->nargs = list_length(call->args);
	state->args = palloc0(state->nargs * sizeof(ExprState *));
	state->fcinfo = palloc0(SizeForFunctionCallInfo(state->nargs));
	InitFunctionCallInfoData(*state->fcinfo, NULL, state->nargs, call->inputcollid, NULL, NULL);
	foreach(cell, call->args)
	{
		Const	   *value = lfirst(cell);

		if (IsA(value, Const))
		{
			state->fcinfo->args[i].value = value->constvalue;
			state->fcinfo->args[i].isnull = value->constisnull;
		}
		else
			state->args[i] = ExecInitExpr((Expr *) value, &css->ss.ps);
		i++;
	}
	find_columns(state);
}

/*
 * check_execute makes sure that the current user may call the function.
 */
static void
check_execute(Oid function)
{
	AclResult	acl = es_proc_aclcheck(function, GetUserId(), ACL_EXECUTE);

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_FUNCTION, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

/*
 * find_columns finds out which columns the node's results and conditions are
 * made of; the others stay NULL.
 */
static void
find_columns(ReadState *state)
{
	Plan	   *plan = state->css.ss.ps.plan;
	TupleTableSlot *slot = state->css.ss.ss_ScanTupleSlot;

	/* without a projection, the parent gets all that we return */
	if (state->css.ss.ps.ps_ProjInfo == NULL)
	{
		PlanState  *ps = &state->css.ss.ps;

		state->ncolumns = Min(slot->tts_tupleDescriptor->natts, ES_NATTS);
		state->whole_row = slot->tts_tupleDescriptor->natts > ES_NATTS;

		/* nor are there conditions, which are compiled for our slot */
		if (plan->qual == NIL && slot->tts_tupleDescriptor->natts == ES_NATTS)
		{
			state->as_stored = true;
			ps->scanopsfixed = ps->resultopsfixed = false;
			ps->scanops = ps->resultops = NULL;
			ps->scanopsset = ps->resultopsset = true;
		}
	}
	else
		(void) note_column((Node *) plan->targetlist, state);
	(void) note_column((Node *) plan->qual, state);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
}

/*
 * note_column notes the columns that an expression refers to.
 */
static bool
note_column(Node *node, ReadState *state)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		AttrNumber	attribute = ((Var *) node)->varattno;

		if (attribute > ES_NATTS)
			state->whole_row = true;
		else
			state->ncolumns = Max(state->ncolumns, attribute);
		return false;
	}
	return expression_tree_walker(node, note_column, (void *) state);
}

/*
 * execute returns the next row.
 */
static TupleTableSlot *
execute(CustomScanState *css)
{
	return ExecScan(&css->ss, next_event, recheck);
}

/*
 * recheck has nothing to check: the plan keeps no rows of ours to be checked
 * after a wait (plan.c).
 */
static bool
recheck(ScanState *ss, TupleTableSlot *slot)
{
	return true;
}

/*
 * next_event returns the next event: its row, or the columns that are wanted.
 */
static TupleTableSlot *
next_event(ScanState *ss)
{
	ReadState  *state = (ReadState *) ss;
	TupleTableSlot *slot = ss->ss_ScanTupleSlot;
	TupleTableSlot *event;

	ExecClearTuple(slot);
	event = read_one(state);
	if (event == NULL)
		return slot;
	if (state->as_stored && event->tts_tupleDescriptor->natts == ES_NATTS)
		return event;
	if (state->ncolumns > 0)
	{
		slot_getsomeattrs(event, state->ncolumns);
		memcpy(slot->tts_values, event->tts_values, state->ncolumns * sizeof(Datum));
		memcpy(slot->tts_isnull, event->tts_isnull, state->ncolumns * sizeof(bool));
	}
	if (state->whole_row)
	{
		MemoryContext old = MemoryContextSwitchTo(ss->ps.ps_ExprContext->ecxt_per_tuple_memory);

		slot->tts_values[ES_NATTS] = es_event_datum(event);
		slot->tts_isnull[ES_NATTS] = false;
		MemoryContextSwitchTo(old);
	}
	return ExecStoreVirtualTuple(slot);
}

/*
 * read_one reads the next event, after it has begun to read if need be.
 */
static TupleTableSlot *
read_one(ReadState *state)
{
	TupleTableSlot *event;
	MemoryContext old;

	if (state->read == NULL)
		begin_read(state);
	if (GetUserId() != state->user)
		return read_as(state);

	old = MemoryContextSwitchTo(state->context);
	if (state->restart)
	{
		state->restart = false;
		es_read_restart(state->read);
	}
	event = es_read_next(state->read);
	MemoryContextSwitchTo(old);
	return event;
}

/*
 * read_as reads the next event for the user for whom the read began, where a
 * cursor is used by another: row security applies page by page.
 */
static TupleTableSlot *
read_as(ReadState *state)
{
	TupleTableSlot *event;
	Oid			user;
	int			security;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(state->user, state->security | SECURITY_LOCAL_USERID_CHANGE);
	event = read_one(state);
	SetUserIdAndSecContext(user, security);
	return event;
}

/*
 * begin_read computes the arguments and begins to read.
 */
static void
begin_read(ReadState *state)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	EState	   *estate = state->css.ss.ps.state;
	MemoryContext old;

	if (state->context == NULL)
		state->context = AllocSetContextCreate(estate->es_query_cxt, "eventsrc read",
											   ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < state->nargs; i++)
	{
		if (state->args[i])
			state->fcinfo->args[i].value =
				ExecEvalExprSwitchContext(state->args[i], econtext,
										  &state->fcinfo->args[i].isnull);
	}
	GetUserIdAndSecContext(&state->user, &state->security);

	old = MemoryContextSwitchTo(state->context);
	state->read = es_read_begin(state->reader, state->fcinfo, estate->es_snapshot);
	MemoryContextSwitchTo(old);
}

/*
 * end_read ends the read; the next row begins another.
 */
static void
end_read(ReadState *state)
{
	if (state->read == NULL)
		return;
	es_read_end(state->read);
	state->read = NULL;
	state->restart = false;
	MemoryContextReset(state->context);
}

/*
 * end ends the node.
 */
static void
end(CustomScanState *css)
{
	end_read((ReadState *) css);
}

/*
 * rescan begins anew: with the events that the node returned before, unless the
 * arguments have changed.
 */
static void
rescan(CustomScanState *css)
{
	ReadState  *state = (ReadState *) css;

	ExecScanReScan(&css->ss);
	if (state->read && css->ss.ps.chgParam &&
		es_call_depends_on((Node *) state->call->args, css->ss.ps.chgParam))
		end_read(state);
	state->restart = (state->read != NULL);
}

/*
 * explain shows the function and its arguments.
 */
static void
explain(CustomScanState *css, List *ancestors, ExplainState *es)
{
	es_call_explain(((ReadState *) css)->call, css, ancestors, es);
}
