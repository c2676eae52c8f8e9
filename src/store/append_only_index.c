/*
 * append_only_index.c
 *		The scans that build indexes on append-only tables.
 *
 * heap's own scans go through heap_getnext(), which accepts no routine but
 * heap's.  These two go through the table's routine instead.  They are
 * shorter than heap's, because no row here is ever updated or deleted: there
 * are no HOT chains, and a row that was committed stays.
 */
#include "eventsrc.h"

#include "store/append_only.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "catalog/index.h"
#include "commands/progress.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* what both scans need to turn rows into index entries */
typedef struct EsIndexFormer
{
	IndexInfo  *info;
	EState	   *estate;
	ExprContext *econtext;
	ExprState  *predicate;
	TupleTableSlot *slot;
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
} EsIndexFormer;

/* what a row means for an index that is being built */
typedef enum EsRowFate
{
	ES_ROW_SKIP,				/* aborted: no entry */
	ES_ROW_INDEX,				/* in progress elsewhere: entry, not counted */
	ES_ROW_COUNT				/* entry, and a live row */
} EsRowFate;

static void begin_forming(EsIndexFormer *former, Relation table,
						  IndexInfo *info);
static bool form_entry(EsIndexFormer *former);
static void end_forming(EsIndexFormer *former);
static EsRowFate judge_row(Relation table, TupleTableSlot *slot,
						   TransactionId oldest_xmin, bool anyvisible,
						   bool unique);
static BlockNumber count_blocks_total(HeapScanDesc scan);
static BlockNumber count_blocks_done(HeapScanDesc scan);

/*
 * es_append_only_build_scan feeds the rows of a table, or of a range of its
 * blocks, to the build of an index; returns the number of live rows.
 *
 * Which rows: a concurrent build takes what an MVCC snapshot shows, and the
 * validate scan adds the rest.  Any other build must index every row that is
 * or may become visible to anybody, whatever snapshots are about, the rows of
 * the own transaction's current command included, so it looks at all tuples
 * and judges each one.  A parallel build brings a scan with the snapshot
 * chosen by the same rule.
 */
double
es_append_only_build_scan(Relation table, Relation index,
						  IndexInfo *index_info, bool allow_sync,
						  bool anyvisible, bool progress,
						  BlockNumber start_block, BlockNumber block_count,
						  IndexBuildCallback callback, void *callback_state,
						  TableScanDesc scan)
{
	EsIndexFormer former;
	HeapScanDesc hscan;
	Snapshot	snapshot;
	Snapshot	own_snapshot = NULL;
	TransactionId oldest_xmin = InvalidTransactionId;
	BlockNumber reported_block = InvalidBlockNumber;
	bool		unique = index_info->ii_Unique ||
		index_info->ii_ExclusionOps != NULL;
	double		live_rows = 0;

	Assert(OidIsValid(index->rd_rel->relam));
	Assert(!IsBootstrapProcessingMode());
	/* rows that another transaction may take back prove no duplicate */
	Assert(!(anyvisible && unique));

	if (scan != NULL)
		snapshot = scan->rs_snapshot;
	else
	{
		if (index_info->ii_Concurrent)
			snapshot = own_snapshot = RegisterSnapshot(GetTransactionSnapshot());
		else
			snapshot = SnapshotAny;
		scan = table_beginscan_strat(table, snapshot, 0, NULL, true,
									 allow_sync);
	}
	Assert(snapshot == SnapshotAny || IsMVCCSnapshot(snapshot));
	Assert(snapshot == SnapshotAny || !anyvisible);
	hscan = (HeapScanDesc) scan;

	if (snapshot == SnapshotAny)
		oldest_xmin = GetOldestNonRemovableTransactionId(table);

	if (!allow_sync)
		heap_setscanlimits(scan, start_block, block_count);
	else
		Assert(start_block == 0 && block_count == InvalidBlockNumber);

	if (progress)
		pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_TOTAL,
									 count_blocks_total(hscan));

	begin_forming(&former, table, index_info);

	while (table_scan_getnextslot(scan, ForwardScanDirection, former.slot))
	{
		CHECK_FOR_INTERRUPTS();

		if (progress)
		{
			BlockNumber done = count_blocks_done(hscan);

			if (done != reported_block)
			{
				pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_DONE, done);
				reported_block = done;
			}
		}

		if (snapshot == SnapshotAny)
		{
			EsRowFate	fate = judge_row(table, former.slot, oldest_xmin,
										 anyvisible, unique);

			if (fate == ES_ROW_SKIP)
				continue;
			if (fate == ES_ROW_COUNT)
				live_rows += 1;
		}
		else
			live_rows += 1;

		if (form_entry(&former))
			callback(index, &former.slot->tts_tid, former.values,
					 former.isnull, true, callback_state);
	}

	if (progress)
		pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_DONE,
									 count_blocks_total(hscan));

	table_endscan(scan);
	if (own_snapshot != NULL)
		UnregisterSnapshot(own_snapshot);
	end_forming(&former);

	return live_rows;
}

/*
 * es_append_only_validate_scan finishes a concurrent build: it adds to the
 * index the rows that the snapshot shows and the index does not hold yet.
 *
 * Rows come in the order of their TIDs, and so do the TIDs that the index
 * holds, so the two are merged in one pass.
 */
void
es_append_only_validate_scan(Relation table, Relation index,
							 IndexInfo *index_info, Snapshot snapshot,
							 ValidateIndexState *state)
{
	EsIndexFormer former;
	TableScanDesc scan;
	HeapScanDesc hscan;
	ItemPointerData indexed;	/* the least TID of the index not passed yet */
	bool		indexed_valid;
	BlockNumber reported_block = InvalidBlockNumber;
	int64		encoded;

	/* No synchronized scan: the merge needs the table from block zero on */
	scan = table_beginscan_strat(table, snapshot, 0, NULL, true, false);
	hscan = (HeapScanDesc) scan;
	pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_TOTAL,
								 hscan->rs_nblocks);

	begin_forming(&former, table, index_info);

	indexed_valid = es_tuplesort_getint64(state->tuplesort, &encoded);
	if (indexed_valid)
		itemptr_decode(&indexed, encoded);

	while (table_scan_getnextslot(scan, ForwardScanDirection, former.slot))
	{
		ItemPointer tid = &former.slot->tts_tid;

		CHECK_FOR_INTERRUPTS();

		state->htups += 1;

		if (ItemPointerGetBlockNumber(tid) != reported_block)
		{
			reported_block = ItemPointerGetBlockNumber(tid);
			pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_DONE,
										 reported_block);
		}

		while (indexed_valid && ItemPointerCompare(&indexed, tid) < 0)
		{
			indexed_valid = es_tuplesort_getint64(state->tuplesort, &encoded);
			if (indexed_valid)
				itemptr_decode(&indexed, encoded);
		}

		if (indexed_valid && ItemPointerEquals(&indexed, tid))
			continue;

		if (form_entry(&former))
		{
			index_insert(index, former.values, former.isnull, tid, table,
						 index_info->ii_Unique ?
						 UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
						 false, index_info);
			state->tups_inserted += 1;
		}
	}

	table_endscan(scan);
	end_forming(&former);
}

/*
 * judge_row tells what to do with a tuple that the scan returned without
 * asking whether it is visible.
 *
 * The builder's lock on the table keeps writers away, so a row in progress is
 * the own transaction's, except in "anyvisible" mode (BRIN summarizes while
 * others append) and where somebody let go of a lock too early; heap is
 * prepared for that, and so is this.
 */
static EsRowFate
judge_row(Relation table, TupleTableSlot *slot, TransactionId oldest_xmin,
		  bool anyvisible, bool unique)
{
	BufferHeapTupleTableSlot *bslot = (BufferHeapTupleTableSlot *) slot;
	HeapTuple	tuple = bslot->base.tuple;
	Buffer		buffer = bslot->buffer;

	Assert(TTS_IS_BUFFERTUPLE(slot) && BufferIsValid(buffer));

	for (;;)
	{
		TransactionId inserter = InvalidTransactionId;
		HTSV_Result result;

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		result = HeapTupleSatisfiesVacuum(tuple, oldest_xmin, buffer);
		if (result == HEAPTUPLE_INSERT_IN_PROGRESS)
			inserter = HeapTupleHeaderGetXmin(tuple->t_data);
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);

		switch (result)
		{
			case HEAPTUPLE_DEAD:
				return ES_ROW_SKIP;

			case HEAPTUPLE_LIVE:
				return ES_ROW_COUNT;

			case HEAPTUPLE_INSERT_IN_PROGRESS:
				if (anyvisible ||
					TransactionIdIsCurrentTransactionId(inserter))
					return ES_ROW_COUNT;
				if (!unique)
					return ES_ROW_INDEX;

				/* a duplicate only if it commits: wait, and look again */
				XactLockTableWait(inserter, table, &tuple->t_self,
								  XLTW_InsertIndexUnique);
				CHECK_FOR_INTERRUPTS();
				break;

			case HEAPTUPLE_RECENTLY_DEAD:
			case HEAPTUPLE_DELETE_IN_PROGRESS:
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("row (%u,%u) of append-only table \"%s\" was updated or deleted",
								ItemPointerGetBlockNumber(&tuple->t_self),
								ItemPointerGetOffsetNumber(&tuple->t_self),
								RelationGetRelationName(table)),
						 errdetail("The access method \"append_only\" does neither, so the table's files or its catalog entry were changed by other means."),
						 errtable(table)));
				break;
		}
	}
}

/*
 * begin_forming prepares for the evaluation of an index's expressions and
 * predicate over rows of a table.
 */
static void
begin_forming(EsIndexFormer *former, Relation table, IndexInfo *info)
{
	former->info = info;
	former->estate = CreateExecutorState();
	former->econtext = GetPerTupleExprContext(former->estate);
	former->slot = table_slot_create(table, NULL);
	former->econtext->ecxt_scantuple = former->slot;
	former->predicate = ExecPrepareQual(info->ii_Predicate, former->estate);
}

/*
 * form_entry computes the index entry of the row in the slot; false where a
 * partial index leaves the row out.
 */
static bool
form_entry(EsIndexFormer *former)
{
	MemoryContextReset(former->econtext->ecxt_per_tuple_memory);

	if (former->predicate != NULL &&
		!ExecQual(former->predicate, former->econtext))
		return false;

	FormIndexDatum(former->info, former->slot, former->estate,
				   former->values, former->isnull);
	return true;
}

/*
 * end_forming frees what begin_forming made.
 */
static void
end_forming(EsIndexFormer *former)
{
	ExecDropSingleTupleTableSlot(former->slot);
	FreeExecutorState(former->estate);

	/* these pointed into the executor state */
	former->info->ii_ExpressionsState = NIL;
	former->info->ii_PredicateState = NULL;
}

/*
 * count_blocks_total tells how many blocks a scan covers, for progress
 * reports.
 */
static BlockNumber
count_blocks_total(HeapScanDesc scan)
{
	if (scan->rs_base.rs_parallel != NULL)
		return ((ParallelBlockTableScanDesc) scan->rs_base.rs_parallel)->phs_nblocks;
	return scan->rs_nblocks;
}

/*
 * count_blocks_done tells how far a scan has come.  A synchronized scan
 * starts in the middle and wraps around; in a parallel one the others may be
 * further ahead.
 */
static BlockNumber
count_blocks_done(HeapScanDesc scan)
{
	BlockNumber start = scan->rs_startblock;

	if (scan->rs_base.rs_parallel != NULL)
		start = ((ParallelBlockTableScanDesc) scan->rs_base.rs_parallel)->phs_startblock;

	if (scan->rs_cblock >= start)
		return scan->rs_cblock - start;
	return count_blocks_total(scan) - start + scan->rs_cblock;
}
