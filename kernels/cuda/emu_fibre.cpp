/* emu_fibre.cpp - see emu_fibre.h; and what a memory fault in a kernel says before it ends the
 * process.  Thread: the OS thread's own. */
#include "kernels/cuda/emu_fibre.h"

#include <atomic>
#include <mutex>
#include <signal.h>
#include <sys/mman.h>

namespace emu
{

static const size_t PAGE = 4096;
static const size_t STACK_BYTES = EMU_ASAN || EMU_TSAN ? 512 * 1024 : 128 * 1024;
/* Tops lie at different places within a page, or all would fight for the same sets of the cache. */
static const size_t STAGGER = 9 * 64;

#if !EMU_UCONTEXT
asm(".text\n.globl emu_switch_stack\n.type emu_switch_stack,@function\nemu_switch_stack:\n"
    " pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    " movq %rsp,(%rdi)\n movq %rsi,%rsp\n"
    " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n"
    ".size emu_switch_stack,.-emu_switch_stack\n");
#endif

static fibre *fibre_new(size_t nth)
{
    fibre *f = new fibre();
    char *m = (char *)mmap(nullptr, STACK_BYTES + PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED || mprotect(m, PAGE, PROT_NONE)) die("no memory for the stack of a thread");
    f->stack = m + PAGE;
    f->bytes = STACK_BYTES;
    char *top = f->stack + STACK_BYTES - nth * STAGGER % PAGE;
#if EMU_UCONTEXT
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = (size_t)(top - f->stack);
    f->context.uc_link = nullptr;
    makecontext(&f->context, fibre_main, 0);
#else
    void **s = (void **)top;
    *--s = nullptr; /* fibre_main has no caller */
    *--s = (void *)fibre_main;
    s -= 6; /* the registers that emu_switch_stack takes back */
    f->sp = s;
#endif
#if EMU_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    return f;
}

fibre *fibre_take(fibres *set)
{
    if (set->idle.empty()) {
        set->all.push_back(fibre_new(set->all.size()));
        return set->all.back();
    }
    fibre *f = set->idle.back();
    set->idle.pop_back();
    return f;
}

void fibre_reserve(fibres *set, size_t n)
{
    while (set->idle.size() < n) {
        set->all.push_back(fibre_new(set->all.size()));
        set->idle.push_back(set->all.back());
    }
}

void fibre_entered(fibres *set)
{
    (void)set;
#if EMU_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (!set->base.stack) { /* the first one is always entered from the base */
        set->base.stack = (char *)bottom;
        set->base.bytes = bytes;
    }
#endif
}

/* ---- faults -----------------------------------------------------------------------------------
 */

typedef bool (*describe_fn)(const void *p, char *out, size_t n);
static std::atomic<describe_fn> describer;

static void on_fault(int sig, siginfo_t *si, void *)
{
    char words[160];
    const char *p = (const char *)si->si_addr;
    signal(sig, SIG_DFL);
    if (blk && blk->cur && blk->cur->fib) {
        const char *stack = blk->cur->fib->stack;
        if (p < stack && p >= stack - PAGE) die("the stack of the thread overflows");
    }
    describe_fn describe = describer.load();
    if (describe && describe(p, words, sizeof words)) die("touches %s", words);
    if (blk) die("touches address %p, which is no memory", (const void *)p);
    /* Not ours: returning meets the fault again, with the default action. */
}

void describe_faults(bool (*fn)(const void *p, char *out, size_t n))
{
    static std::once_flag once;
    if (fn) describer.store(fn);
    std::call_once(once, [] {
        struct sigaction now, mine = {};
        if (sigaction(SIGSEGV, nullptr, &now) || now.sa_handler != SIG_DFL) return;
        mine.sa_sigaction = on_fault;
        mine.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
        sigaction(SIGSEGV, &mine, nullptr);
    });
}

/* ---- an OS thread's set -----------------------------------------------------------------------
 */

static const size_t SIGNAL_STACK = 64 * 1024;

fibres::fibres() : base(), running(&base)
{
    stack_t now;
    if (sigaltstack(nullptr, &now) || !(now.ss_flags & SS_DISABLE)) return;
    stack_t s = {};
    s.ss_sp = signal_stack = malloc(SIGNAL_STACK);
    s.ss_size = SIGNAL_STACK;
    if (signal_stack) sigaltstack(&s, nullptr);
}

fibres::~fibres()
{
    for (fibre *f : all) {
#if EMU_TSAN
        __tsan_destroy_fiber(f->tsan);
#endif
#if EMU_ASAN
        /* Marks of frames that were left would stay on whatever is mapped there next. */
        ASAN_UNPOISON_MEMORY_REGION(f->stack, f->bytes);
#endif
        munmap(f->stack - PAGE, f->bytes + PAGE);
        delete f;
    }
    if (!signal_stack) return;
    stack_t off = {};
    off.ss_flags = SS_DISABLE;
    sigaltstack(&off, nullptr);
    free(signal_stack);
}

} // namespace emu
