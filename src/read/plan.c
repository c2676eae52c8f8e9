/*
 * plan.c
 *		Puts a custom scan in the place of es_read_stream() and es_read_all() in
 *		FROM.
 *
 * A function scan stores all rows before it returns the first.  The custom scan
 * (node.c) returns them as they are read: no copies, and a LIMIT ends it.  The
 * planner is also told in which order they come.
 * The function scan remains where call.c says so.
 */
#include "eventsrc.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/plancat.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/typcache.h"

#include "read/call.h"
#include "read/read.h"
#include "store/store.h"

static CustomPath *plan_call(PlannerInfo *root, RelOptInfo *rel, FuncExpr *call);
static List *pathkeys(PlannerInfo *root, RelOptInfo *rel, EsReader reader, FuncExpr *call);
static Plan *plan_read(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
					   List *tlist, List *clauses, List *custom_plans);

static const CustomPathMethods path_methods = {
	.CustomName = "EventsrcRead",
	.PlanCustomPath = plan_read
};

/*
 * es_read_install_hooks has calls of readers planned here; in the postmaster.
 */
void
es_read_install_hooks(void)
{
	es_call_plan_by(plan_call);
	RegisterCustomScanMethods(&es_read_scan_methods);
}

/*
 * plan_call makes the path of a function that reads.
 */
static CustomPath *
plan_call(PlannerInfo *root, RelOptInfo *rel, FuncExpr *call)
{
	EsReader	reader = es_reader_of(call->funcid);
	CustomPath *path = reader == ES_READS_NOTHING ? NULL : es_call_path(rel, call, &path_methods);

	if (path)
		path->path.pathkeys = pathkeys(root, rel, reader, call);
	return path;
}

/*
 * pathkeys tells the planner the order of the events: that of the versions or
 * of the global positions.
 */
static List *
pathkeys(PlannerInfo *root, RelOptInfo *rel, EsReader reader, FuncExpr *call)
{
	AttrNumber	attribute = ES_ATT_GLOBAL_POSITION;
	bool		descending = false;
	TypeCacheEntry *int8;
	Var		   *var;

	if (reader == ES_READS_STREAM)
	{
		Const	   *backward = list_length(call->args) > 4 ? list_nth(call->args, 4) : NULL;

		if (backward == NULL || !IsA(backward, Const))
			return NIL;
		attribute = ES_ATT_VERSION;
		descending = !backward->constisnull && DatumGetBool(backward->constvalue);
	}
	var = makeVar(rel->relid, attribute, INT8OID, -1, InvalidOid, 0);
	int8 = lookup_type_cache(INT8OID, TYPECACHE_LT_OPR | TYPECACHE_GT_OPR);

	return es_build_expression_pathkey(root, (Expr *) var, descending ? int8->gt_opr : int8->lt_opr,
									   rel->relids);
}

/*
 * plan_read makes the plan's node of the path.  It returns all columns of
 * es_event, and the row as a whole where something asks for that.
 */
static Plan *
plan_read(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
		  List *tlist, List *clauses, List *custom_plans)
{
	List	   *columns = build_physical_tlist(root, rel);
	Bitmapset  *used = NULL;

	clauses = extract_actual_clauses(clauses, false);
	pull_varattnos((Node *) tlist, rel->relid, &used);
	pull_varattnos((Node *) clauses, rel->relid, &used);
	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &used);
	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, used))
	{
		Var		   *row = makeWholeRowVar(planner_rt_fetch(rel->relid, root), rel->relid, 0, false);

		columns = lappend(columns, makeTargetEntry((Expr *) row, list_length(columns) + 1,
												   NULL, false));
	}

	return es_call_plan(path, tlist, clauses, columns, &es_read_scan_methods);
}
