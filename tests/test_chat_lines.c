/* test_chat_lines.c - tools, calls and results in the labelled lines of older checkpoints (API T2,
 * react and function): what is written, and what is read of it. */
#include "tests/chat_rig.h"

/* In the JSON of this file ' stands for ". */
#define U(text) "{'role':'user','content':'" text "'}"
#define A(text) "{'role':'assistant','content':'" text "'}"
#define ASKS(text, calls) "{'role':'assistant','content':'" text "','tool_calls':[" calls "]}"
#define CALLS_F(id, args) \
    "{'id':'" id "','type':'function','function':{'name':'f','arguments':" args "}}"
#define CALLS_G(id) "{'id':'" id "','type':'function','function':{'name':'g','arguments':'{}'}}"
#define R(id, text) "{'role':'tool','tool_call_id':'" id "','content':'" text "'}"
#define TOOLS                                                                                   \
    ",'tools':[{'type':'function','function':{'name':'f','description':'does it','parameters':" \
    "{'type':'object'}}},{'type':'function','function':{'name':'g'}}]"
#define TALK(messages) "{'messages':[" messages "]" TOOLS "}"
#define BARE(messages) "{'messages':[" messages "]}"

#define SYSTEM(text) "<|im_start|>system\n" text "<|im_end|>\n"
#define USER_TURN(text) "<|im_start|>user\n" text "<|im_end|>\n"
#define DEFAULT "You are a helpful assistant."
#define ABOUT_F \
    "f: does it Parameters: {\"type\": \"object\"} Format the arguments as a JSON object.\n\n"
#define ABOUT_G "g: Parameters: {} Format the arguments as a JSON object.\n\n"
#define ASKED(question)                                                                       \
    "Answer the question below. These tools can help you:\n\n" ABOUT_F ABOUT_G                \
    "Write in this form:\n\nQuestion: the question that you answer\nThought: what has to be " \
    "done next\nAction: the tool to use, one of [f, g]\nAction Input: the arguments of the "  \
    "tool\nObservation: the result of the tool\n... (as often as you need)\nThought: I now "  \
    "know the final answer\nFinal Answer: the answer to the "                                 \
    "question\n\nBegin!\n\nQuestion: " question
#define FLOWER "\xE2\x9C\xBF"
#define MARK(name) FLOWER name FLOWER ": "
#define TOLD                                                                                       \
    "# Tools\n\n## These tools can help you:\n\n### f\n\n" ABOUT_F "### g\n\n" ABOUT_G             \
    "## To use a tool, write these lines in your reply, the first two once for each "              \
    "tool that you use at the same time:\n\n" MARK(                                                \
        "FUNCTION") "the tool to use, one of [f,g]\n" MARK("ARGS") "the arguments of the "         \
                                                                   "tool\n" MARK(                  \
                                                                       "RESULT") "the "            \
                                                                                 "resul"           \
                                                                                 "t of "           \
                                                                                 "the "            \
                                                                                 "tool"            \
                                                                                 "\n" MARK(        \
                                                                                     "RETURN") "y" \
                                                                                               "o" \
                                                                                               "u" \
                                                                                               "r" \
                                                                                               " " \
                                                                                               "r" \
                                                                                               "e" \
                                                                                               "p" \
                                                                                               "l" \
                                                                                               "y" \
                                                                                               "," \
                                                                                               " " \
                                                                                               "m" \
                                                                                               "a" \
                                                                                               "d" \
                                                                                               "e" \
                                                                                               " " \
                                                                                               "o" \
                                                                                               "f" \
                                                                                               " " \
                                                                                               "t" \
                                                                                               "h" \
                                                                                               "e" \
                                                                                               " " \
                                                                                               "r" \
                                                                                               "e" \
                                                                                               "s" \
                                                                                               "u" \
                                                                                               "l" \
                                                                                               "t" \
                                                                                               "s"

static void prompt_as(const char *form, const char *name, const char *request, const char *want,
                      bool after_label)
{
    char *body = strdup(request);
    for (char *p = body; *p; p++)
        if (*p == '\'') *p = '"';
    chat_format *f = format(name);
    ck_assert(chat_format_use_calls(f, form));
    result r = render_with(f, body);
    ck_assert_msg(r.code == 0, "%s: %s (%s)", body, r.e.msg, r.fault.param);
    ck_assert_str_eq(buf_str(&r.p.prompt.text), want);
    ck_assert_msg(r.p.after_label == after_label, "%s", body);
    drop(&r);
    chat_format_free(f);
    free(body);
}

static void react(const char *request, const char *want, bool after_label)
{
    prompt_as("react", QWEN2, request, want, after_label);
}

static void marks(const char *request, const char *want, bool after_label)
{
    prompt_as("function", QWEN2, request, want, after_label);
}

START_TEST(react_tells_of_tools_in_the_last_question)
{
    react(TALK(U("\\n hi \\n")), SYSTEM(DEFAULT) USER_TURN(ASKED(" hi")) GO, false);
    react(TALK("{'role':'system','content':'S'}," U("one") "," A("two\\n") "," U("three")),
          SYSTEM("S") USER_TURN("one") GO
          "Thought: I now know the final answer.\nFinal Answer: two<|im_end|>\n" USER_TURN(
              ASKED("three")) GO,
          false);
    /* Without tools nothing is told and nothing is labelled. */
    react(BARE(U("one") "," A("two") "," U("three")),
          SYSTEM(DEFAULT) USER_TURN("one") GO "two<|im_end|>\n" USER_TURN("three") GO, false);
    /* A later system text is no question; without any, the system text tells of the tools. */
    react(TALK(U("one") ",{'role':'system','content':'S'}"),
          SYSTEM(DEFAULT) USER_TURN(ASKED("one")) "<|im_start|>system\nS<|im_end|>\n" GO, false);
}
END_TEST

START_TEST(react_goes_on_in_the_assistants_turn)
{
#define ONE ASKS("look", CALLS_F("1", "'{}'")) "," R("1", "seven\\n")
#define ONE_TEXT "Thought: look\nAction: f\nAction Input: {}\nObservation: seven"
    react(TALK(U("go") "," ONE),
          SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO ONE_TEXT "\nThought:", true);
    /* The next round, without a thought. */
    react(TALK(U("go") "," ONE "," ASKS("", CALLS_G("2")) "," R("2", "8")),
          SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO ONE_TEXT
          "\nThought:\nAction: g\nAction Input: {}\nObservation: 8\nThought:",
          true);
    /* The answer, and a later question. */
    react(TALK(U("go") "," ONE "," A("15") "," U("why")),
          SYSTEM(DEFAULT) USER_TURN("go") GO ONE_TEXT
          "\nThought: I now know the final answer.\nFinal Answer: 15<|im_end|>\n" USER_TURN(
              ASKED("why")) GO,
          false);
    /* A question in the place of an answer; calls nobody answered; results without a call. */
    react(TALK(U("go") "," ONE "," U("why")),
          SYSTEM(DEFAULT) USER_TURN("go") GO ONE_TEXT "<|im_end|>\n" USER_TURN(ASKED("why")) GO,
          false);
    react(TALK(U("go") "," ASKS("look", CALLS_G("1")) "," U("why")),
          SYSTEM(DEFAULT) USER_TURN("go") GO
          "Thought: look\nAction: g\nAction Input: {}<|im_end|>\n" USER_TURN(ASKED("why")) GO,
          false);
    react(TALK(U("go") "," R("1", "7")),
          SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO "Observation: 7\nThought:", true);
    /* Calls made at once stand with their results, whatever the order of those. */
    react(TALK(U("go") "," ASKS("both", CALLS_F("1", "{'x':1}") "," CALLS_G("2")) "," R(
              "2", "b") "," R("1", "a")),
          SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO
          "Thought: both\nAction: f\nAction Input: {\"x\": 1}\nObservation: a\nAction: g\nAction "
          "Input: {}\nObservation: b\nThought:",
          true);
    /* By order where ids say nothing; a result too many stands behind. */
    react(TALK(U("go") "," ASKS("both", CALLS_F("1", "{}") "," CALLS_G("2")) "," R(
              "2", "b") ",{'role':'tool',"
                        "'content':'a'}," R("3", "c")),
          SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO
          "Thought: both\nAction: f\nAction Input: {}\nObservation: a\nAction: g\nAction "
          "Input: {}\nObservation: b\nObservation: c\nThought:",
          true);
    /* Where no call is looked for, the answer is due. */
    react(BARE(U("go") "," ONE),
          SYSTEM(DEFAULT) USER_TURN("go") GO ONE_TEXT
          "\nThought: I now know the final answer.\nFinal Answer: ",
          true);
    react("{'messages':[" U("go") "," ONE "],'tool_choice':'none'" TOOLS "}",
          SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO ONE_TEXT
          "\nThought: I now know the final answer.\nFinal Answer: ",
          true);
    react("{'messages':[" U("go") "],'tool_choice':'none'" TOOLS "}",
          SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO
          "Thought: I now know the final answer.\nFinal Answer: ",
          true);
    /* Nothing is to be generated. */
    react("{'messages':[" U("go") "," ONE "],'add_generation_prompt':false" TOOLS "}",
          SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO ONE_TEXT "<|im_end|>\n", false);
}
END_TEST

START_TEST(marks_go_on_in_the_assistants_turn)
{
#define HEAD SYSTEM(DEFAULT "\n\n" TOLD)
#define CALL_F MARK("FUNCTION") "f\n" MARK("ARGS") "{}"
#define CALL_G MARK("FUNCTION") "g\n" MARK("ARGS") "{}"
    marks(TALK(U("hi") "," A("yes ") "," U("go")),
          HEAD USER_TURN("hi") GO "yes <|im_end|>\n" USER_TURN("go") GO, false);
    marks(TALK("{'role':'system','content':'S'}," U("hi")), SYSTEM("S\n\n" TOLD) USER_TURN("hi") GO,
          false);
    marks(TALK(U("go") "," ASKS("", CALLS_F("1", "{}")) "," R("1", "seven\\n")),
          HEAD USER_TURN("go") GO CALL_F "\n" MARK("RESULT") "seven\n\n" FLOWER "RETURN" FLOWER ":",
          true);
    marks(TALK(U("go") "," ASKS("look", CALLS_F("1", "{}")) "," R("1", "7") "," ASKS(
              "", CALLS_G("2")) "," R("2", "8")),
          HEAD USER_TURN("go") GO "look\n" CALL_F "\n" MARK("RESULT") "7\n" MARK(
              "RETURN") "\n" CALL_G "\n" MARK("RESULT") "8\n" FLOWER "RETURN" FLOWER ":",
          true);
    marks(TALK(U("go") "," ASKS("", CALLS_G("2") "," CALLS_F("1", "{}")) "," R("1", "a") "," R(
              "2", "b") "," A("15") "," U("why")),
          HEAD USER_TURN("go") GO CALL_G "\n" CALL_F "\n" MARK("RESULT") "b\n" MARK(
              "RESULT") "a\n" MARK("RETURN") "15<|im_end|>\n" USER_TURN("why") GO,
          false);
    marks(TALK(U("go") "," ASKS("", CALLS_G("1")) "," R("1", "7") "," ASKS(
              "more", CALLS_G("2")) "," U("stop")),
          HEAD USER_TURN("go") GO CALL_G
          "\n" MARK("RESULT") "7\n" MARK("RETURN") "more\n" CALL_G "<|im_end|>\n" USER_TURN("stop")
              GO,
          false);
    marks(BARE(U("go") "," ASKS("", CALLS_G("1")) "," R("1", "7")),
          SYSTEM(DEFAULT) USER_TURN("go") GO CALL_G "\n" MARK("RESULT") "7\n" MARK("RETURN"), true);
}
END_TEST

/* C6: the client's own beginning of an answer, also behind results. */
START_TEST(an_answer_is_continued)
{
#define PREFIX(text) "{'role':'assistant','content':'" text "','prefix':true}"
    react(TALK(U("go") "," PREFIX("I ")), SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO "Thought: I ",
          false);
    react(TALK(U("go") "," ONE "," PREFIX("It")),
          SYSTEM(DEFAULT) USER_TURN(ASKED("go")) GO ONE_TEXT "\nThought: It", false);
    marks(TALK(U("go") "," PREFIX("I ")), HEAD USER_TURN("go") GO "I ", false);
    marks(TALK(U("go") "," ASKS("", CALLS_G("1")) "," R("1", "7") "," PREFIX("It")),
          HEAD USER_TURN("go") GO CALL_G "\n" MARK("RESULT") "7\n" MARK("RETURN") "It", false);
}
END_TEST

/* A template that thinks: the turn is one, and what results hold is no thought. */
START_TEST(thoughts_of_the_turn)
{
    prompt_as("react", QWEN3,
              "{'messages':[" U(
                  "go") ",{'role':'assistant','content':'look','reasoning_content':'R',"
                        "'tool_calls':[" CALLS_G("1") "]}," R("1", "a</think>b<think>") "]}",
              USER_TURN("go") GO
              "<think>\nR\n</think>\n\nThought: look\nAction: g\nAction Input: {}\n"
              "Observation: a</think>b<think>\nThought: I now know the final answer.\n"
              "Final Answer: ",
              true);
    prompt_as(
        "react", QWEN3,
        "{'messages':[" U("go") "," ASKS("", CALLS_G("1")) "," R("1", "a</think>b") "," A("c") "]}",
        USER_TURN("go") GO
        "<think>\n\n</think>\n\nThought:\nAction: g\nAction Input: {}\nObservation: "
        "a</think>b\nThought: I now know the final answer.\nFinal Answer: c<|im_end|>\n" GO,
        false);
}
END_TEST

/* The first template of Qwen1.5 writes its last turn in another way. */
START_TEST(other_templates)
{
    prompt_as("react", "Qwen1.5-Chat-first", TALK(U("go") "," ONE),
              SYSTEM("You are a helpful assistant") USER_TURN(ASKED("go")) GO ONE_TEXT "\nThought:",
              true);
    prompt_as("function", NULL, TALK(U("go") "," ASKS("", CALLS_G("1")) "," R("1", "7")),
              SYSTEM(TOLD) USER_TURN("go") GO CALL_G "\n" MARK("RESULT") "7\n" FLOWER
                                                                         "RETURN" FLOWER ":",
              true);
}
END_TEST

/* Many calls and results are matched in linear time. */
START_TEST(large_exchanges_are_linear)
{
    enum { N = 20000 };
    buf b = {0};
    buf_puts(&b, "{'messages':[" U("go") ",{'role':'assistant','tool_calls':[");
    for (int i = 0; i < N; i++)
        buf_printf(&b, "%s{'id':'%d','type':'function','function':{'name':'g','arguments':{}}}",
                   i ? "," : "", i);
    buf_puts(&b, "]}");
    for (int i = N; i-- > 0;)
        buf_printf(&b, ",{'role':'tool','tool_call_id':'%d','content':'%d'}", i, i);
    buf_puts(&b, "]}");
    for (size_t i = 0; i < b.len; i++)
        if (b.v[i] == '\'') b.v[i] = '"';
    chat_format *f = format(QWEN2);
    ck_assert(chat_format_use_calls(f, "function"));
    result r = render_with(f, b.v);
    ck_assert_msg(r.code == 0, "%s", r.e.msg);
    ck_assert_ptr_nonnull(strstr(r.p.prompt.text.v, MARK("RESULT") "6\n" MARK("RESULT") "7\n"));
    drop(&r);
    chat_format_free(f);
    buf_clear(&b);
}
END_TEST

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct {
    const char *text, *want; /* content, then each call as <name arguments> */
    call_format form;
    bool after_label;
} said_case;

static const said_case cases[] = {
    {" look\nAction: f\nAction Input: {\"a\": 1}\nObservation: x", "look<f {\"a\": 1}>",
     CALLS_REACT, true},
    {"\nAction: f\nAction Input: {}", "<f {}>", CALLS_REACT, true},
    {" I know.\nFinal Answer: 4\n 5 ", "I know.\n4\n 5 ", CALLS_REACT, true},
    {" \n\n  deep", "deep", CALLS_REACT, true},
    {"  deep", "  deep", CALLS_REACT, false},
    {" Thought: again", "again", CALLS_REACT, true},
    {"Action: f\nnothing like it", "Action: f\nnothing like it", CALLS_REACT, true},
    {" it is 7", "it is 7", CALLS_FUNCTION, true},
    {" :) ", ":) ", CALLS_FUNCTION, true},
    {" \n" MARK("FUNCTION") "g\n" MARK("ARGS") "{}\n" MARK("RESULT"), "<g {}>", CALLS_FUNCTION,
     true},
    /* The marks count inside a line, too. */
    {"well " MARK("FUNCTION") "g\n" MARK("ARGS") "{}", "well<g {}>", CALLS_FUNCTION, false},
    {"a " FLOWER FLOWER "FUN" MARK("FUNCTION") "g\n" MARK("ARGS") "{}",
     "a " FLOWER FLOWER "FUN<g {}>", CALLS_FUNCTION, false},
    {"a " FLOWER " \xE2\x86\x92 b " FLOWER, "a " FLOWER " \xE2\x86\x92 b " FLOWER, CALLS_FUNCTION,
     false},
    {"hi " MARK("RETURN") "you", "hi you", CALLS_FUNCTION, false},
    {MARK("ARGS") "{}", MARK("ARGS") "{}", CALLS_FUNCTION, false},
    /* Cut short: once the name and the label of the arguments are there it is a call. */
    {"Action: f\nAction Input:", "<f >", CALLS_REACT, false},
    {MARK("FUNCTION") "f\n" MARK("ARGS") "{\"a", "<f {\"a>", CALLS_FUNCTION, false},
    {"Action: f\nAction", "Action: f\nAction", CALLS_REACT, false},
    {"Action: f\nAction Input: {}\nObserv", "<f {}>", CALLS_REACT, false},
    {"Action: f\nAction Input: {}\nObserver", "Observer<f {}>", CALLS_REACT, false},
    {MARK("FUNCTION") "f\n" MARK("ARGS") "{}\n" FLOWER, "<f {}>", CALLS_FUNCTION, false},
    {"so " FLOWER "RES", "so " FLOWER "RES", CALLS_FUNCTION, false},
    /* What follows a call is not the model's to say. */
    {MARK("FUNCTION") "g\n" MARK("ARGS") "{}\n" MARK("RETURN") "made up", "<g {}>", CALLS_FUNCTION,
     false},
    {MARK("FUNCTION") "g\n" MARK("ARGS") "{}\n" MARK("FUNCTION") "f\n" MARK(
         "ARGS") "{\"a\": \"" FLOWER "\"}\n" MARK("RESULT") "x",
     "<g {}><f {\"a\": \"" FLOWER "\"}>", CALLS_FUNCTION, false},
};

/* The text fed in pieces of n bytes, to one line. */
static void read_split(const said_case *t, size_t n, buf *out)
{
    said all = {0};
    output *o = output_new(&(output_options){.calls = t->form, .after_label = t->after_label});
    ck_assert_ptr_nonnull(o);
    size_t len = strlen(t->text);
    for (size_t i = 0; i < len && !output_wants_end(o); i += n)
        output_feed_bytes(o, t->text + i, len - i < n ? len - i : n, &all);
    output_end(o, &all);
    ck_assert(said_ok(&all));
    buf_reset(out);
    said_copy(&all, SAID_ANSWER, out);
    for (int i = 0; i < all.n; i++) {
        if (all.piece[i].kind != SAID_CALL) continue;
        buf_printf(out, "<%.*s ", (int)all.piece[i].n, said_text(&all, i));
        said_args(&all, i, out);
        buf_putc(out, '>');
    }
    said_clear(&all);
    output_free(o);
}

/* T11: at any cut. */
START_TEST(lines_are_read)
{
    buf got = {0};
    for (size_t n = 1; n <= 64; n++) {
        read_split(&cases[_i], n, &got);
        ck_assert_msg(!strcmp(buf_str(&got), cases[_i].want), "by %zu: %s", n, buf_str(&got));
    }
    buf_clear(&got);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("chat_lines");
    TCase *c = tcase_create("all");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, react_tells_of_tools_in_the_last_question);
    tcase_add_test(c, react_goes_on_in_the_assistants_turn);
    tcase_add_test(c, marks_go_on_in_the_assistants_turn);
    tcase_add_test(c, an_answer_is_continued);
    tcase_add_test(c, thoughts_of_the_turn);
    tcase_add_test(c, other_templates);
    tcase_add_test(c, large_exchanges_are_linear);
    tcase_add_loop_test(c, lines_are_read, 0, sizeof cases / sizeof *cases);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
