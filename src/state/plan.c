/*
 * plan.c
 *		Lets es_states() fold some aggregates where the query wants no others:
 *
 *			SELECT * FROM es.order_now WHERE aggregate_id = '1';
 *			SELECT * FROM es.order_now WHERE aggregate_id IN ('1', '2');
 *
 * The planner's hook gives the call of es_states() that is in FROM one argument
 * more, an array of the ids that the condition asks for.  The condition itself
 * remains.
 */
#include "eventsrc.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/paths.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "state/state.h"

/* the arguments that es_states() has in SQL, and its column aggregate_id */
#define NARGS				4
#define COLUMN_ID			1

static set_rel_pathlist_hook_type previous_pathlist_hook = NULL;

static void set_rel_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte);
static FuncExpr *states_call(RangeTblEntry *rte);
static Node *wanted_ids(Index rti, Node *clause);
static bool is_known(Node *node);
static bool is_id(Index rti, Node *node);

/*
 * es_state_install_hooks installs the planner's hook in the postmaster.
 */
void
es_state_install_hooks(void)
{
	previous_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = set_rel_pathlist;
}

/*
 * set_rel_pathlist tells a call of es_states() which aggregates are wanted.
 */
static void
set_rel_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	FuncExpr   *call;
	Node	   *ids = NULL;
	ListCell   *cell;

	if (previous_pathlist_hook)
		previous_pathlist_hook(root, rel, rti, rte);

	call = rel->baserestrictinfo ? states_call(rte) : NULL;
	if (call == NULL)
		return;
	foreach(cell, rel->baserestrictinfo)
	{
		ids = wanted_ids(rti, (Node *) lfirst_node(RestrictInfo, cell)->clause);
		if (ids)
			break;
	}
	if (ids)
	{
		RangeTblFunction *function = copyObject(linitial_node(RangeTblFunction, rte->functions));

		call = (FuncExpr *) function->funcexpr;
		call->args = lappend(call->args, copyObject(ids));
		rte->functions = list_make1(function);
	}
}

/*
 * states_call returns the call of es_states() that a range table entry is, if it
 * is one.
 */
static FuncExpr *
states_call(RangeTblEntry *rte)
{
	FuncExpr   *call;
	char	   *name;

	if (rte->rtekind != RTE_FUNCTION || rte->funcordinality || list_length(rte->functions) != 1)
		return NULL;
	call = (FuncExpr *) linitial_node(RangeTblFunction, rte->functions)->funcexpr;
	if (!IsA(call, FuncExpr) || call->funcid < FirstNormalObjectId || list_length(call->args) != NARGS)
		return NULL;
	name = get_func_name(call->funcid);
	if (name == NULL || strcmp(name, "es_states") != 0 || !es_is_states(call->funcid))
		return NULL;
	return call;
}

/*
 * wanted_ids returns an array of what a condition says that the aggregate's id
 * equals, if it says that and the values are the same for all rows.
 */
static Node *
wanted_ids(Index rti, Node *clause)
{
	OpExpr	   *op = (OpExpr *) clause;
	ScalarArrayOpExpr *any = (ScalarArrayOpExpr *) clause;
	ArrayExpr  *array;
	Node	   *id;

	if (IsA(clause, ScalarArrayOpExpr))
	{
		id = lsecond(any->args);
		return any->useOr && any->opfuncid == F_TEXTEQ && get_collation_isdeterministic(any->inputcollid) &&
			is_id(rti, linitial(any->args)) && exprType(id) == TEXTARRAYOID && is_known(id) ? id : NULL;
	}
	if (!IsA(clause, OpExpr) || list_length(op->args) != 2 || op->opfuncid != F_TEXTEQ ||
		!get_collation_isdeterministic(op->inputcollid))
		return NULL;
	if (is_id(rti, linitial(op->args)))
		id = lsecond(op->args);
	else if (is_id(rti, lsecond(op->args)))
		id = linitial(op->args);
	else
		return NULL;
	if (!is_known(id))
		return NULL;
	array = makeNode(ArrayExpr);
	array->array_typeid = TEXTARRAYOID;
	array->array_collid = op->inputcollid;
	array->element_typeid = TEXTOID;
	array->elements = list_make1(id);
	array->location = -1;
	return (Node *) array;
}

/*
 * is_known tells whether an expression is the same for all rows.
 */
static bool
is_known(Node *node)
{
	return !contain_var_clause(node) && !contain_volatile_functions(node) && !contain_subplans(node);
}

/*
 * is_id tells whether an expression is the column aggregate_id.
 */
static bool
is_id(Index rti, Node *node)
{
	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node && IsA(node, Var) && ((Var *) node)->varno == rti &&
		((Var *) node)->varattno == COLUMN_ID && ((Var *) node)->varlevelsup == 0;
}
