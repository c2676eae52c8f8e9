/*
 * target.h
 *		A table that rows are written into, by the executor's routines, outside
 *		a plan.
 */
#ifndef EVENTSRC_TARGET_H
#define EVENTSRC_TARGET_H

#include "eventsrc.h"

#include "nodes/execnodes.h"

typedef struct EsTarget
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *relinfo;
} EsTarget;

extern EsTarget *es_target_open(Oid relid);
extern void es_target_close(EsTarget *target);

#endif							/* EVENTSRC_TARGET_H */
