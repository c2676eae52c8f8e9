/*
 * rows.c
 *		Reads the rows that a scan of a partition's index finds, page by page.
 *
 * index_getnext_slot() pins, locks and unlocks a page for each row.  Events of a
 * stream that were appended one after the other mostly lie side by side, as do
 * events in the order of their positions.  So the index is asked for some rows
 * ahead, and those on one page are looked up while it is locked once.  The page
 * stays pinned as long as they are returned.
 *
 * On a page that vacuum has marked as visible to all, rows are taken as they are.
 */
#include "eventsrc.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/tupmacs.h"
#include "access/xact.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "read/rows.h"
#include "store/store.h"

/* so many rows are looked up at once: few at first, then ever more */
#define AHEAD_FIRST	4
#define AHEAD_MAX	64

struct EsRows
{
	Relation	rel;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		by_page;		/* else index_getnext_slot() reads */
	int			ahead;
	bool		waiting;		/* scan->xs_heaptid has yet to be read */
	bool		ended;			/* the index has no more */
	Buffer		buffer;			/* holds the tuples */
	int			count;
	int			next;
	HeapTupleData tuples[AHEAD_MAX];
};

static bool read_page(EsRows *rows, ScanDirection direction);
static inline bool all_visible(Page page, Snapshot snapshot);
static inline bool take_tuple(EsRows *rows, ItemPointer tid, HeapTuple tuple);
static bool next_tid(EsRows *rows, ScanDirection direction);
static int	take_page(EsRows *rows, ScanDirection direction, BlockNumber block, ItemPointer tids);

/*
 * es_rows_begin begins to read what an index scan finds, into a slot.  Page by
 * page it can be done where rows lie in a heap, and the snapshot sees the same
 * ones whenever it looks.
 */
EsRows *
es_rows_begin(Relation rel, IndexScanDesc scan, TupleTableSlot *slot)
{
	EsRows	   *rows = palloc(sizeof(EsRows));

	rows->rel = rel;
	rows->scan = scan;
	rows->slot = slot;
	rows->by_page = IsMVCCSnapshot(scan->xs_snapshot) && TTS_IS_BUFFERTUPLE(slot) &&
		rel->rd_tableam->index_fetch_tuple == GetHeapamTableAmRoutine()->index_fetch_tuple;
	rows->ahead = AHEAD_FIRST;
	rows->waiting = rows->ended = false;
	rows->buffer = InvalidBuffer;
	rows->count = rows->next = 0;
	return rows;
}

/*
 * es_rows_next puts the next row into the slot; false at the end.
 */
bool
es_rows_next(EsRows *rows, ScanDirection direction)
{
	if (!rows->by_page)
		return index_getnext_slot(rows->scan, direction, rows->slot);
	while (rows->next == rows->count)
	{
		if (!read_page(rows, direction))
			return false;
	}
	ExecStoreBufferHeapTuple(&rows->tuples[rows->next++], rows->slot, rows->buffer);
	return true;
}

/*
 * es_rows_end ends reading; the slot may still hold a row.
 */
void
es_rows_end(EsRows *rows)
{
	if (BufferIsValid(rows->buffer))
		ReleaseBuffer(rows->buffer);
	pfree(rows);
}

/*
 * read_page looks up some more rows, which may turn out not to be visible; false
 * if there are none.
 */
static bool
read_page(EsRows *rows, ScanDirection direction)
{
	ItemPointerData tids[AHEAD_MAX];
	BlockNumber block;
	Buffer		before = rows->buffer;
	bool		visible;
	int			ntids;

	if (!rows->waiting && !next_tid(rows, direction))
		return false;
	block = ItemPointerGetBlockNumber(&rows->scan->xs_heaptid);
	ntids = take_page(rows, direction, block, tids);

	rows->buffer = ReleaseAndReadBuffer(before, rows->rel, block);
	if (rows->buffer != before)
		heap_page_prune_opt(rows->rel, rows->buffer);

	rows->count = rows->next = 0;
	LockBuffer(rows->buffer, BUFFER_LOCK_SHARE);
	visible = all_visible(BufferGetPage(rows->buffer), rows->scan->xs_snapshot);
	for (int i = 0; i < ntids; i++)
	{
		HeapTuple	tuple = &rows->tuples[rows->count];

		if ((visible && take_tuple(rows, &tids[i], tuple)) ||
			heap_hot_search_buffer(&tids[i], rows->rel, rows->buffer, rows->scan->xs_snapshot,
								   tuple, NULL, true))
		{
			rows->count++;
			pgstat_count_heap_fetch(rows->scan->indexRelation);
		}
	}
	LockBuffer(rows->buffer, BUFFER_LOCK_UNLOCK);
	return true;
}

/*
 * all_visible tells whether a snapshot sees all rows of a page: not where nobody
 * but a standby's startup process could tell, nor where each row that is read is
 * to be noted.
 */
static inline bool
all_visible(Page page, Snapshot snapshot)
{
	return PageIsAllVisible(page) && !snapshot->takenDuringRecovery && !IsolationIsSerializable();
}

/*
 * take_tuple takes the row at a place that an index names, if it is there.
 */
static inline bool
take_tuple(EsRows *rows, ItemPointer tid, HeapTuple tuple)
{
	Page		page = BufferGetPage(rows->buffer);
	OffsetNumber number = ItemPointerGetOffsetNumber(tid);
	ItemId		item;

	if (number > PageGetMaxOffsetNumber(page))
		return false;
	item = PageGetItemId(page, number);
	if (!ItemIdIsNormal(item))
		return false;
	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	tuple->t_tableOid = RelationGetRelid(rows->rel);
	tuple->t_self = *tid;
	return true;
}

/*
 * next_tid asks the index for the next row's place, which is in scan->xs_heaptid
 * then; false if there is none.
 */
static bool
next_tid(EsRows *rows, ScanDirection direction)
{
	if (rows->ended)
		return false;
	rows->waiting = index_getnext_tid(rows->scan, direction) != NULL;
	rows->ended = !rows->waiting;
	return rows->waiting;
}

/*
 * take_page takes the places of the rows on a page from the index, from the one
 * that waits on, as far as they follow one another.
 */
static int
take_page(EsRows *rows, ScanDirection direction, BlockNumber block, ItemPointer tids)
{
	int			ntids = 0;

	do
	{
		tids[ntids++] = rows->scan->xs_heaptid;
		rows->waiting = false;
	} while (ntids < rows->ahead && next_tid(rows, direction) &&
			 ItemPointerGetBlockNumber(&rows->scan->xs_heaptid) == block);
	rows->ahead = Min(rows->ahead * 2, AHEAD_MAX);
	return ntids;
}

/*
 * take_value takes a column that is as long as its value says, at an offset
 * that it moves behind it.
 */
static inline Datum
take_value(char *base, uint32 *offset)
{
	char	   *value;

	*offset = att_align_pointer(*offset, TYPALIGN_INT, -1, base + *offset);
	value = base + *offset;
	*offset += VARSIZE_ANY(value);
	return PointerGetDatum(value);
}

/*
 * es_rows_deform makes an event's columns up to data ready in its slot, which
 * must be one that a scan returned.  Of a row as it is stored we know where its
 * columns lie (tables.c has checked them).
 */
void
es_rows_deform(TupleTableSlot *slot)
{
	BufferHeapTupleTableSlot *stored = (BufferHeapTupleTableSlot *) slot;
	HeapTupleHeader row;
	Datum	   *values = slot->tts_values;
	char	   *base;
	uint32		offset = sizeof(int64);

	StaticAssertStmt(ES_ATT_DATA == 8, "columns of events moved");
	if (!TTS_IS_BUFFERTUPLE(slot) || slot->tts_nvalid != 0 || stored->base.tuple == NULL ||
		HeapTupleHeaderGetNatts(stored->base.tuple->t_data) < ES_ATT_DATA ||
		(HeapTupleHasNulls(stored->base.tuple) && stored->base.tuple->t_data->t_bits[0] != 0xFF))
	{
		slot_getsomeattrs(slot, ES_ATT_DATA);
		return;
	}

	row = stored->base.tuple->t_data;
	base = (char *) row + row->t_hoff;
	values[ES_ATT_GLOBAL_POSITION - 1] = fetch_att(base, FLOAT8PASSBYVAL, sizeof(int64));
	values[ES_ATT_AGGREGATE_TYPE - 1] = take_value(base, &offset);
	values[ES_ATT_AGGREGATE_ID - 1] = take_value(base, &offset);
	offset = DOUBLEALIGN(offset);
	values[ES_ATT_VERSION - 1] = fetch_att(base + offset, FLOAT8PASSBYVAL, sizeof(int64));
	offset += sizeof(int64);
	values[ES_ATT_EVENT_ID - 1] = take_value(base, &offset);
	values[ES_ATT_EVENT_TYPE - 1] = take_value(base, &offset);
	offset = INTALIGN(offset);
	values[ES_ATT_SCHEMA_VERSION - 1] = fetch_att(base + offset, true, sizeof(int32));
	offset += sizeof(int32);
	values[ES_ATT_DATA - 1] = take_value(base, &offset);

	memset(slot->tts_isnull, false, ES_ATT_DATA * sizeof(bool));
	slot->tts_nvalid = ES_ATT_DATA;

	/* where the other columns follow */
	stored->base.off = offset;
	slot->tts_flags |= TTS_FLAG_SLOW;
}
