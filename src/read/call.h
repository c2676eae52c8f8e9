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

/* when a plan is made */
extern FuncExpr *es_call_in_from(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte);
extern bool es_call_is_plain(Oid function);
extern CustomPath *es_call_path(RelOptInfo *rel, FuncExpr *call, const CustomPathMethods * methods);

/* when it runs */
extern bool es_call_depends_on(Node *node, Bitmapset *changed);
extern void es_call_explain(FuncExpr *call, CustomScanState *css, List *ancestors,
							ExplainState *es);

#endif							/* EVENTSRC_CALL_H */
