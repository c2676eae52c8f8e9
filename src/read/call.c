/*
 * call.c
 *		Which function scans a custom scan can replace, and what those custom
 *		scans have in common.
 *
 * The function scan remains where the executor may have to check a row once
 * more after a wait (UPDATE, DELETE, MERGE and SELECT FOR UPDATE keep copies of
 * the other tables' rows), and where the function is not as the extension made
 * it (replaced, SECURITY DEFINER, settings, a hook of a security module).
 */
#include "eventsrc.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/paths.h"
#include "optimizer/prep.h"
#include "utils/builtins.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "read/call.h"

/* those that make paths of calls */
static EsCallPlanner planners[2];
static int	nplanners = 0;

static set_rel_pathlist_hook_type previous_pathlist_hook = NULL;

static void set_rel_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte);
static FuncExpr *call_in_from(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte);
static bool is_plain(Oid function);

/*
 * es_call_plan_by has a planner asked for the path of each call in FROM; in the
 * postmaster.
 */
void
es_call_plan_by(EsCallPlanner planner)
{
	Assert(nplanners < lengthof(planners));
	if (nplanners == 0)
	{
		previous_pathlist_hook = set_rel_pathlist_hook;
		set_rel_pathlist_hook = set_rel_pathlist;
	}
	planners[nplanners++] = planner;
}

/*
 * set_rel_pathlist replaces the function scan of a call for which there is a
 * custom scan.
 */
static void
set_rel_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	FuncExpr   *call;

	if (previous_pathlist_hook)
		previous_pathlist_hook(root, rel, rti, rte);

	call = call_in_from(root, rel, rti, rte);
	for (int i = 0; call && i < nplanners; i++)
	{
		CustomPath *path = planners[i] (root, rel, call);

		if (path)
		{
			rel->pathlist = list_make1(path);
			break;
		}
	}
}

/*
 * call_in_from returns the function's call if that is all that a relation of
 * a query is, and a function scan all that the planner thought of; else NULL.
 */
static FuncExpr *
call_in_from(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	FuncExpr   *call;

	if (rte->rtekind != RTE_FUNCTION || rte->funcordinality || list_length(rte->functions) != 1)
		return NULL;
	call = (FuncExpr *) ((RangeTblFunction *) linitial(rte->functions))->funcexpr;
	if (!IsA(call, FuncExpr) || call->funcid < FirstNormalObjectId)
		return NULL;
	if (list_length(rel->pathlist) != 1 ||
		((Path *) linitial(rel->pathlist))->pathtype != T_FunctionScan ||
		get_plan_rowmark(root->rowMarks, rti) != NULL)
		return NULL;
	return call;
}

/*
 * is_plain tells whether nothing but the C function of its name happens
 * when a function is called.
 */
static bool
is_plain(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	Datum		source;
	bool		isnull;
	bool		plain;

	if (!HeapTupleIsValid(tuple))
		return false;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	plain = !proc->prosecdef && !proc->proisstrict && proc->prolang == ClanguageId &&
		heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL) &&
		!isnull && strcmp(TextDatumGetCString(source), NameStr(proc->proname)) == 0;
	ReleaseSysCache(tuple);
	return plain && !FmgrHookIsNeeded(function);
}

/*
 * es_call_path makes the path of a custom scan; NULL if the function is not as
 * the extension made it.  It costs what the function scan does, but the first
 * row comes at once.
 */
CustomPath *
es_call_path(RelOptInfo *rel, FuncExpr *call, const CustomPathMethods * methods)
{
	Path	   *scan = linitial(rel->pathlist);
	CustomPath *path;

	if (!is_plain(call->funcid))
		return NULL;
	path = makeNode(CustomPath);
	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = scan->pathtarget;
	path->path.param_info = scan->param_info;
	path->path.parallel_safe = scan->parallel_safe;
	path->path.rows = scan->rows;
	path->path.startup_cost = scan->startup_cost;
	path->path.total_cost = scan->total_cost;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->custom_private = list_make1(call);
	path->methods = methods;
	return path;
}

/*
 * es_call_plan makes the plan's node of such a path, which returns columns (a
 * target list of the call's) to whoever asks for some of them.
 */
Plan *
es_call_plan(CustomPath *path, List *tlist, List *clauses, List *columns,
			 const CustomScanMethods *methods)
{
	CustomScan *scan = makeNode(CustomScan);

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = clauses;
	scan->scan.scanrelid = 0;
	scan->flags = path->flags;
	scan->custom_scan_tlist = columns;

	/*
	 * here the planner sees the function, its parameters and what it depends
	 * on
	 */
	scan->custom_exprs = list_copy(path->custom_private);
	scan->methods = methods;
	return &scan->scan.plan;
}

/*
 * es_call_depends_on tells whether an expression's value can be another one
 * after some parameters have changed; of a subquery we take that for granted.
 */
bool
es_call_depends_on(Node *node, Bitmapset *changed)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
		return ((Param *) node)->paramkind == PARAM_EXEC &&
			bms_is_member(((Param *) node)->paramid, changed);
	if (IsA(node, SubPlan))
		return true;
	return expression_tree_walker(node, es_call_depends_on, (void *) changed);
}

/*
 * es_call_explain shows the function and its arguments.
 */
void
es_call_explain(FuncExpr *call, CustomScanState *css, List *ancestors, ExplainState *es)
{
	List	   *context = set_deparse_context_plan(es->deparse_cxt, css->ss.ps.plan, ancestors);
	bool		qualify = list_length(es->rtable) > 1 || es->verbose;

	ExplainPropertyText("Function Call",
						deparse_expression((Node *) call, context, qualify, false), es);
}
