/*
 * target.h
 *		A table of a store that rows are written into, by the executor's
 *		routines, outside a plan.
 */
#ifndef EVENTSRC_TARGET_H
#define EVENTSRC_TARGET_H

#include "store/store.h"

#include "access/heapam.h"
#include "nodes/execnodes.h"

typedef struct EsTarget
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *relinfo;

	/* the rest is target.c's */
	Oid			relid;
	uint64		generation;		/* of the store, when this was made */
	TupleDesc	desc;
	const TupleTableSlotOps *slot_ops;
	int			nslots;
	TupleTableSlot **slots;
	int			nindexes;
	Oid		   *indexes;
	bool		kept;			/* for the next append */
	bool		busy;
	SubTransactionId opened_in;
} EsTarget;

extern EsTarget *es_target_open(EsStore *store, Oid relid);
extern TupleTableSlot **es_target_slots(EsTarget *target, int count);
extern void es_target_store(EsTarget *target, TupleTableSlot *slot, const Datum *values, const bool *nulls);
extern void es_target_check(EsTarget *target, TupleTableSlot *slot);
extern void es_target_insert(EsTarget *target, TupleTableSlot **slots, int nslots,
							 BulkInsertState bulk, bool triggers, int *at);
extern void es_target_close(EsTarget *target);

#endif							/* EVENTSRC_TARGET_H */
