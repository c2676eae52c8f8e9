/*
 * plan.c
 *		Lets es_states() fold one aggregate where the query wants no other:
 *
 *			SELECT * FROM es.order_now WHERE aggregate_id = '1';
 *
 * The planner's hook gives the call of es_states() that is in FROM one argument
 * more, the id that the condition asks for.  The condition itself remains.
 */
#include "eventsrc.h"

#include "access/transam.h"
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
static Node *wanted_id(Index rti, Node *clause);
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
 * set_rel_pathlist tells a call of es_states() which aggregate is wanted.
 */
static void
set_rel_pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	FuncExpr   *call;
	Node	   *id = NULL;
	ListCell   *cell;

	if (previous_pathlist_hook)
		previous_pathlist_hook(root, rel, rti, rte);

	call = rel->baserestrictinfo ? states_call(rte) : NULL;
	if (call == NULL)
		return;
	foreach(cell, rel->baserestrictinfo)
	{
		id = wanted_id(rti, (Node *) lfirst_node(RestrictInfo, cell)->clause);
		if (id)
			break;
	}
	if (id)
	{
		RangeTblFunction *function = copyObject(linitial_node(RangeTblFunction, rte->functions));

		call = (FuncExpr *) function->funcexpr;
		call->args = lappend(call->args, copyObject(id));
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
 * wanted_id returns what a condition says that the aggregate's id equals, if it
 * says that and the value is the same for all rows.
 */
static Node *
wanted_id(Index rti, Node *clause)
{
	OpExpr	   *op = (OpExpr *) clause;
	Node	   *id;

	if (!IsA(clause, OpExpr) || list_length(op->args) != 2 || op->opfuncid != F_TEXTEQ ||
		!get_collation_isdeterministic(op->inputcollid))
		return NULL;
	if (is_id(rti, linitial(op->args)))
		id = lsecond(op->args);
	else if (is_id(rti, lsecond(op->args)))
		id = linitial(op->args);
	else
		return NULL;
	if (contain_var_clause(id) || contain_volatile_functions(id) || contain_subplans(id))
		return NULL;
	return id;
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
