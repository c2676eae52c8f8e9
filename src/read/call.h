/*
 * call.h
 *		Calls of the extension's functions in FROM that a custom scan makes, in
 *		the place of a function scan.
 */
#ifndef EVENTSRC_CALL_H
#define EVENTSRC_CALL_H

#include "eventsrc.h"

#include "commands/explain.h"
#include "nodes/extensible.h"
#include "nodes/pathnodes.h"
#include "nodes/primnodes.h"

/* makes the path of a custom scan for a call; NULL if it has none for that one */
typedef CustomPath *(*EsCallPlanner) (PlannerInfo *root, RelOptInfo *rel, FuncExpr *call);

/* when a plan is made */
extern void es_call_plan_by(EsCallPlanner planner);
extern CustomPath *es_call_path(RelOptInfo *rel, FuncExpr *call, const CustomPathMethods * methods);
extern Plan *es_call_plan(CustomPath *path, List *tlist, List *clauses, List *columns,
						  const CustomScanMethods *methods);

/* when it runs */
extern bool es_call_depends_on(Node *node, Bitmapset *changed);
extern void es_call_explain(FuncExpr *call, CustomScanState *css, List *ancestors,
							ExplainState *es);

#endif							/* EVENTSRC_CALL_H */
